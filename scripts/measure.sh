# Sourced by the scripts that draw up tables: `measure`, which evaluates in two processes.
cof=.venv/bin/cof
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
measure() { # FOLDER OPTION ...: each process takes every other question; the last one to end prints the table
  local folder="$1"
  shift
  mkdir -p "$folder"
  "$cof" eval -o "$folder" --shard 2/2 "$@" >"$folder.log" 2>&1 &
  "$cof" eval -o "$folder" --shard 1/2 "$@"
  wait $! || { cat "$folder.log"; exit 1; }
  grep -v trajectories "$folder.log" || true
}
