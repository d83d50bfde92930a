#!/usr/bin/env bash
# Does it learn from real pictures, and how well? benchmarks/learning.sh [cifar10|fashion|clothing]... (all), with SEEDS="0 1 2".
#   cifar10   resnet20 on CIFAR-10 as JPEG files: at least 80 % of the 10,000 test pictures within 12 epochs
#   fashion   resnet20 on Fashion-MNIST from its IDX files: at least 91 % of the 10,000 test pictures
#   clothing  resnet18 at 96 px on photographs of many sizes, end to end; no threshold
# CONVOLT_TEST_DATA names the folder with cifar10_jpg/, fashion_mnist/ and clothing/. One line of JSON for each training goes to
# build/learning/results.jsonl and to stdout; exit code 1 when one misses its threshold. On 2 cores a CIFAR-10 training takes
# about 12 minutes, the others 5.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${CONVOLT_TEST_DATA:?CONVOLT_TEST_DATA must name the folder of data sets}
convolt=${CONVOLT:-build/convolt}
work=build/learning
[ -x "$convolt" ] || tools/build.sh
mkdir -p $work
failed=0

# learn NAME DATA THRESHOLD FLAGS...: a training for each seed and its test accuracy.
learn() {
  local name=$1 path=$2 threshold=$3 seed start result accuracy
  shift 3
  for seed in ${SEEDS:-0 1 2}; do
    start=$SECONDS
    "$convolt" train --data-path "$path" --seed "$seed" --output-dir "$work/$name-$seed" --overwrite "$@"
    # The last epoch's weights: the best ones were chosen on the test pictures.
    result=$("$convolt" eval --checkpoint "$work/$name-$seed/last.safetensors" --data-path "$path" --json)
    accuracy=$(sed -E 's/.*"top1":([0-9.e-]+).*/\1/' <<<"$result")
    echo "{\"case\":\"$name\",\"seed\":$seed,\"accuracy\":$accuracy,\"threshold\":$threshold,\"seconds\":$((SECONDS - start)),\"flags\":\"$*\"}" |
      tee -a $work/results.jsonl
    awk -v a="$accuracy" -v t="$threshold" 'BEGIN { exit !(a >= t) }' || failed=1
  done
}

# unpack ARCHIVE FOLDER
unpack() {
  [ -e "$2" ] && return
  mkdir -p "$2.part" && tar -C "$2.part" -xf "$1" && mv "$2.part" "$2"
}

for name in "${@:-cifar10 fashion clothing}"; do
  for case in $name; do
    case $case in
      cifar10)
        unpack "$data/cifar10_jpg/cifar10_images_jpg.tar.xz" $work/cifar10
        set_path=$(dirname "$(find $work/cifar10 -maxdepth 2 -type d -name train)")
        learn cifar10 "$set_path" 0.80 --model resnet20 --epochs 8 -b 128 --sched one-cycle --lr 0.3 --nesterov --wd 5e-4
        ;;
      fashion)
        learn fashion "$data/fashion_mnist" 0.91 --model resnet20 --epochs 3 -b 128 --sched one-cycle --lr 0.2 --nesterov --wd 5e-4 --hflip 0.5
        ;;
      clothing)
        unpack "$data/clothing/clothing-small-2600.tar" $work/clothing
        learn clothing $work/clothing 0 --model resnet18 --train-crop-size 96 --epochs 3 -b 64 --lr 0.05 --lr-warmup-epochs 1 --scale 0.35,1
        ;;
      *) echo "learning: unknown case '$case'; expected cifar10, fashion or clothing" >&2 && exit 2 ;;
    esac
  done
done
[ $failed = 0 ] || { echo "learning: a training stayed below its threshold" >&2; exit 1; }
