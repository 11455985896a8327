"""Write the comment of a pull request, and replace it in place when the next run comes.

    python3 comment.py report/comment.md      environment: PULL_REQUEST, GH_TOKEN, GITHUB_*

The first line of the file is a mark that tells the comments of several gates apart. Needs the standard library and `gh`
alone, since it runs with a token that writes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from gh import gh, run_address

LIMIT = 65_000
"""Characters; GitHub takes 65,536."""


def existing(comments: str, mark: str) -> tuple[int, str] | None:
    """Return number and text of the comment with this mark that a workflow wrote; None: there is none.

    comments: a JSON list in each line: number, text, kind of author."""
    for line in comments.splitlines():
        number, text, author = json.loads(line)
        if author == "Bot" and text.startswith(mark):
            return number, text
    return None


def main() -> int:
    """Run the command."""
    env = os.environ
    text = Path(sys.argv[1]).read_text()[:LIMIT].rstrip()
    mark = text.partition("\n")[0]
    body = json.dumps({"body": f"{text}\n\n[Run]({run_address()}) of commit {env['COMMIT'][:12]}\n"})
    comments = f"repos/{env['GITHUB_REPOSITORY']}/issues/{env['PULL_REQUEST']}/comments"
    select = ".[] | [.id, .body, .user.type] | @json"
    before = existing(gh("api", "--paginate", comments, "--jq", select), mark)
    if before is None:
        gh("api", "--method", "POST", comments, "--input", "-", text=body)
    elif before[1].rstrip() != json.loads(body)["body"].rstrip():
        place = f"repos/{env['GITHUB_REPOSITORY']}/issues/comments/{before[0]}"
        gh("api", "--method", "PATCH", place, "--input", "-", text=body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
