#!/usr/bin/env bash
# Add the runs of a folder to the branch `history`, which is made where there is none:
#     record.sh FOLDER REPOSITORY PLACE
# PLACE is a folder of the branch: what is compared over the nights lies in one. Files are added and never changed. Where
# somebody else has pushed meanwhile, it begins again from there.
set -euo pipefail

folder=$(realpath "$1") repository=$2 place=$3 branch=history
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init --quiet "$work"
cd "$work"
git config user.name "github-actions[bot]"
git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
git remote add origin "$repository"

begin() { # at the end of the branch; without one, an empty one
  status=0
  git ls-remote --exit-code --heads origin "refs/heads/$branch" >/dev/null || status=$?
  case "$status" in
    0)
      git fetch --quiet --depth 1 origin "refs/heads/$branch"
      git checkout --quiet --force -B "$branch" FETCH_HEAD
      ;;
    2) git checkout --quiet --orphan "$branch" ;;
    *) exit "$status" ;;
  esac
}

for attempt in 1 2 3 4 5; do
  begin
  while IFS= read -r -d '' file; do
    target=$place/${file#"$folder"/}
    if [ -e "$target" ] && ! cmp --quiet "$file" "$target"; then
      echo "$target: is in the history already, with another content; nothing was written" >&2
      exit 1
    fi
    mkdir -p "$(dirname "$target")"
    cp "$file" "$target"
  done < <(find "$folder" -type f -name '*.jsonl' -print0)
  git add --all
  if git diff --cached --quiet; then
    echo "nothing new"
    exit
  fi
  git commit --quiet --message "$(git diff --cached --name-only | wc -l) more in the history"
  if git push --quiet origin "HEAD:refs/heads/$branch"; then
    exit
  fi
  echo "attempt $attempt: somebody else has pushed to $branch meanwhile" >&2
  sleep "$attempt"
done
exit 1
