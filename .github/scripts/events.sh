#!/usr/bin/env bash
# Say what happened in the history of a place, the run in report/history included: report/events.json for events.py, and
# the page report/history.html.
#     events.sh REPOSITORY PLACE PYTHON
set -euo pipefail

repository=$1 place=$2 python=$3 branch=history
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
git ls-remote --exit-code --heads "$repository" "refs/heads/$branch" >/dev/null || status=$?
case "$status" in
  0) git clone --quiet --depth 1 --branch "$branch" "$repository" "$work/history" ;;
  2) ;; # the first run makes it
  *) exit "$status" ;;
esac
mkdir -p "$work/history/$place"
if [ -d report/history ]; then
  cp -R report/history/. "$work/history/$place/"
fi
"$python" -m quantgate.history issues "$work/history/$place" >"$work/events.json"
"$python" -m quantgate.history page "$work/history/$place" --out report/history.html
mv "$work/events.json" report/events.json
