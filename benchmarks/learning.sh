#!/usr/bin/env bash
# Does it learn from real pictures? LeNet on Fashion-MNIST from its IDX files (at least 90 % of the 10,000 test pictures), and the clothing
# photographs end to end. CONVOLT_TEST_DATA names the folder with fashion_mnist/ and clothing/. About 8 minutes on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${CONVOLT_TEST_DATA:?CONVOLT_TEST_DATA must name the folder of data sets}
convolt=build/convolt
work=build/learning
[ -x $convolt ] || tools/build.sh
mkdir -p $work

echo "== Fashion-MNIST, lenet"
start=$SECONDS
$convolt train --data-path "$data/fashion_mnist" --model lenet --epochs 12 -b 128 --lr 0.05 --wd 5e-4 --lr-warmup-epochs 0.5 --hflip 0.5 \
  --output-dir $work/fashion --overwrite
accuracy=$($convolt eval --checkpoint $work/fashion/best.safetensors --data-path "$data/fashion_mnist" --json | sed -E 's/.*"top1":([0-9.e-]+).*/\1/')
echo "test accuracy $accuracy after $((SECONDS - start)) s"

echo "== clothing photographs, resnet18 at 96 px"
[ -d $work/clothing/train ] || { mkdir -p $work/clothing && tar -C $work/clothing -xf "$data/clothing/clothing-small-2600.tar"; }
start=$SECONDS
$convolt train --data-path $work/clothing --model resnet18 --train-crop-size 96 --epochs 3 -b 64 --lr 0.05 --lr-warmup-epochs 1 \
  --scale 0.35,1 --output-dir $work/clothing-run --overwrite
$convolt eval --checkpoint $work/clothing-run/best.safetensors --data-path $work/clothing
echo "trained in $((SECONDS - start)) s"
awk -v a="$accuracy" 'BEGIN { exit !(a >= 0.90) }' || { echo "learning: Fashion-MNIST stayed below 90 %" >&2; exit 1; }
