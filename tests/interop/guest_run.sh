#!/bin/sh
# Runs the shell script that is the body of a POST; answers with what it printed and, on a last line, its exit status.
printf 'Content-Type: application/octet-stream\r\n\r\n'
script=$(mktemp)
head -c "$CONTENT_LENGTH" >"$script"
export PATH=/bin:/usr/bin:/usr/sbin HOME=/
cd /
sh "$script" 2>&1 </dev/null
status=$?
rm -f "$script"
printf '\nexit status %d\n' "$status"
