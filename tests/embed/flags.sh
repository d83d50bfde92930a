#!/bin/sh
# What Convolt is compiled with, and its own headers, stay its own: tests/embed/flags.sh BUILD
set -eu
command=$(grep '"command".*tests/embed/main.cpp' "$1/compile_commands.json")
for own in -march= -mmove-max -ffp-contract -fopenmp -Wshadow "/src " "/kernels "; do
  case $command in
    *"$own"*) echo "a program that embeds Convolt is compiled with '$own': $command" && exit 1 ;;
  esac
done
