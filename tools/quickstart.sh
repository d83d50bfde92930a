#!/usr/bin/env bash
# From a fresh clone to a trained network: installs what is missing, builds, draws a set of pictures, trains the same network without and
# with augmentation, and shows what augmentation gave. tools/quickstart.sh [--seed N] [--cpu|--cuda]
# Nothing is downloaded but packages. Run again, it rebuilds nothing and trains anew.
set -euo pipefail
cd "$(dirname "$0")/.."

seed=0
kind=()
while [ $# -gt 0 ]; do
  case "$1" in
    --seed) seed=${2:?usage: tools/quickstart.sh [--seed N] [--cpu|--cuda]}; shift 2 ;;
    --cpu | --cuda) kind=("$1"); shift ;;
    *) echo "usage: tools/quickstart.sh [--seed N] [--cpu|--cuda]" >&2; exit 2 ;;
  esac
done

tools/build.sh "${kind[@]}"
convolt=build/convolt
work=build/quickstart
shapes=$work/shapes
mkdir -p "$work"
if [ ! -e "$shapes/val" ]; then
  rm -rf "$shapes"
  $convolt synth "$shapes" --classes 8 --train-per-class 150 --val-per-class 40
fi

# Both runs see the same pictures in the same order and start from the same weights.
common=(--data-path "$shapes" --model lenet --train-crop-size 32 --epochs 30 -b 32 --lr 0.02 --wd 5e-4 --lr-warmup-epochs 1
  --seed "$seed" --overwrite)
echo
echo "training without augmentation"
$convolt train "${common[@]}" --no-augment --output-dir "$work/plain" >/dev/null
echo
echo "training with rotation, zoom, shift and mirroring"
$convolt train "${common[@]}" --no-augment --rotate 35 --zoom 0.7,1.5 --translate 0.12 --hflip 0.5 --output-dir "$work/augmented" >/dev/null

accuracy() { $convolt eval --checkpoint "$1/last.safetensors" --data-path "$shapes" --json | sed -E 's/.*"top1":([0-9.e-]+).*/\1/'; }
plain=$(accuracy "$work/plain")
augmented=$(accuracy "$work/augmented")

echo
echo "predicting three pictures it has not seen"
$convolt predict --checkpoint "$work/augmented/last.safetensors" --topk 3 "$shapes"/val/{arrow,star,triangle}/000.jpg
awk -v a="$plain" -v b="$augmented" 'BEGIN {
  print ""
  print "  training               accuracy on unseen pictures"
  printf "  without augmentation   %5.1f %%\n", 100 * a
  printf "  with augmentation      %5.1f %%   (%+.1f points)\n", 100 * b, 100 * (b - a)
}'
cat <<END

What to type next:
  $convolt train --data-path YOUR_PICTURES --model resnet18 --train-crop-size 128 --epochs 30 --output-dir run
  $convolt eval --checkpoint run/best.safetensors --data-path YOUR_PICTURES
  $convolt train --help
YOUR_PICTURES holds train/<class>/*.jpg and val/<class>/*.jpg.
END
