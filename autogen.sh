#!/bin/sh
# Generates configure and the Makefile.in files.
set -e
cd "$(dirname "$0")"
mkdir -p config/aux
exec autoreconf --install --force --warnings=all,no-obsolete
