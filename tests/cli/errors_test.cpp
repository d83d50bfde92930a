// Wrong input gets one sentence and the right exit code.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "cli/program.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

struct Case {
  const char* arguments;
  int code;
  const char* says;
};

// @ stands for a folder that holds: shapes/ (a picture set), empty/, cut.safetensors, text.txt, text.json, run/ (not
// empty).
const Case kCases[] = {
    {"", 2, "subcommand"},
    {"trian", 2, "unknown word 'trian', did you mean 'train'?"},
    {"train --data-pth x", 2, "unknown flag '--data-pth', did you mean '--data-path'?"},
    {"train --data-path @shapes --model resnet2O", 2, "unknown model 'resnet2O', did you mean 'resnet20'?"},
    {"train --data-path @missing", 3, "no such file or folder"},
    {"train --data-path @empty", 3, "empty"},
    {"train --data-path @text.txt", 3, "text.txt"},
    {"train --data-path @shapes --data-format rar", 2,
     "unknown --data-format 'rar': expected auto, packed, numpy, tar,"},
    {"train --data-path @shapes --val-split 1.5", 2, "--val-split"},
    {"train --data-path @shapes --val-split 1", 2, "leaves none on one side"},
    {"train --data-path @shapes --val-split 0.5 --val-data-path @shapes", 2, "exclude"},
    {"train --data-path @shapes --fraction 0", 2, "--fraction 0 of"},
    {"train --data-path @shapes -b 4 --batch-size 8", 2, "--batch-size is given 2 times, expected once"},
    {"train --data-path @shapes --wd inf", 2, "--wd: expected at least 0, found inf"},
    {"train --data-path @shapes --best-metric top5 --model resnet20 -b 4 -q", 2,
     "top1 or loss where there are no more"},
    {"augment --data-path @shapes --model resnet20", 2, "augment needs --out FILE.png, or --explain"},
    {"augment --data-path @shapes --model resnet20 --explain --sample 999", 2, "--sample 999"},
    {"augment --data-path @shapes --model resnet20 --explain --out @x.png", 2, "--explain"},
    {"augment --data-path @shapes --model resnet20 --explain --seed -1", 2, "from 0 to 2^64 - 1, found -1"},
    {"augment --data-path @shapes --model resnet20 --explain --seed 18446744073709551616", 2, "from 0 to 2^64 - 1"},
    {"augment --data-path @shapes --model resnet20 --explain --aa rand-q3", 2, "'q3' is not known"},
    {"augment --data-path @shapes --model resnet20 --explain --aa rand-m", 2, "'m' has no number"},
    {"augment --data-path @shapes --model resnet20 --explain --aa often", 2, "expected none, ra"},
    {"augment --data-path @shapes --model resnet20 --explain --aa rand-w0", 2, "'w0' is not known"},
    {"augment --data-path @shapes --model resnet20 --explain --aa rand-tother", 2, "or tweights, t3a or t3aw"},
    {"augment --data-path @shapes --model resnet20 --explain --aa rand-m12", 2, "magnitude must be 0 to 10, found 12"},
    {"augment --data-path @shapes --model resnet20 --explain --aa rand-mmax40", 2, "magnitude_max must be 1 to 30"},
    {"augment --data-path @shapes --model resnet20 --explain --aa original-m9", 2, "'m9' is not known; expected"},
    {"augment --data-path @shapes --model resnet20 --explain --aa original-tweights", 2, "'tweights' has no number"},
    {"augment --data-path @shapes --model resnet20 --explain --aa augmix-m5-w4-d2", 2, "timm's keys of AugMix"},
    {"augment --data-path @shapes --model resnet20 --explain --aa ta_wide --ra-magnitude 3", 2,
     "is for --auto-augment"},
    {"augment --data-path @shapes --model resnet20 --explain --jpeg 0.5,90,20", 2, "jpeg_quality"},
    {"augment --data-path @shapes --model resnet20 --explain --gaussian-blur 0.5,0.1,20", 2, "blur_sigma"},
    {"train --recipe nothing --dry-run", 2, "expected airbench94"},
    {"train --data-path @shapes --model resnet20 --dry-run --scale 1,0.5", 2, "scale"},
    {"train --data-path @shapes --model resnet20 --dry-run --freeze nosuch", 2, "no parameter's name has 'nosuch'"},
    {"train --data-path @shapes --model resnet20 --dry-run --focal-gamma 3", 2, "is for --loss focal, not for ce"},
    {"train --data-path @shapes --model resnet20 --checkpoint-every 5", 2, "--checkpoint-every needs --output-dir"},
    {"train --data-path @shapes --model resnet20 --mean 123,117,104", 2, "--mean: expected levels in 0..1, found 123"},
    {"train --data-path @shapes --max-bad 120%", 2, "--max-bad: expected a part of all, as 1% or 0.01, found '120%'"},
    {"train --data-path @shapes --limit 0", 2, "--limit: expected at least 1, found 0"},
    {"train --data-path @shapes --data-format zip", 3, "has no .zip files"},
    {"train --data-path @shapes --device cuda:x", 2, "unknown device 'cuda:x'"},
    {"train --data-path @shapes --model resnet20 -b 1000", 3, "fewer than one batch of 1000"},
    {"train --data-path @shapes --model resnet20 -b 0", 2, "--batch-size: expected at least 1, found 0"},
    {"train --data-path @shapes --model lenet --train-crop-size 4", 2,
     "conv2d 'conv2': kernel 5 exceeds padded input 2x2"},
    {"train --data-path @shapes --model resnet20 --num-classes 1", 2, "fewer than the 2 classes"},
    {"train --data-path @shapes --output-dir @run", 2, "is not empty"},
    {"train --data-path @shapes --output-dir @text.txt", 2, "is a file"},
    {"eval --data-path @shapes --checkpoint @cut.safetensors --model lenet", 2, "leave out --model"},
    {"train --data-path @shapes --resume @cut.safetensors --model resnet20 -b 4", 3, "cut.safetensors"},
    {"train --data-path @shapes --mean 0.5,0.5 -b 4", 2, "--mean takes one value or three"},
    {"train --data-path @shapes --lr nan1", 2, "--lr"},
    {"train --data-path @shapes --crop-padding 4 --scale 0.5,1", 2, "two ways to crop"},
    {"train --data-path @shapes --model resnet20 -b 4 --lr 1e30 --epochs 1 --quiet", 1,
     "the loss of step 1 is not finite"},
    {"train --data-path @shapes --loss hinge", 2, "--loss"},
    {"train --data-path @shapes --model resnet20 -b 4 --class-weights @missing", 3, "cannot read the class weights"},
    {"train --data-path @shapes --model resnet20 -b 4 --class-weights @text.txt", 3, "text.txt"},
    {"train --data-path @shapes --model resnet20 -b 4 --class-weights /dev/zero", 3, "expected numbers of at least 0"},
    {"train --data-path @shapes --distill-alpha 0.5", 2, "--teacher"},
    {"train --data-path @shapes --model resnet20 -b 4 --teacher @cut.safetensors", 3, "cut.safetensors"},
    {"train --data-path @shapes --opt adam --nesterov", 2, "--nesterov is for --opt sgd, not for adam"},
    {"train --data-path @shapes --opt adamw --momentum 0.5", 2, "--momentum is for --opt sgd, rmsprop, lars"},
    {"train --data-path @shapes --opt adamx", 2, "adamx"},
    {"train --data-path @shapes --opt lamb --nesterov", 2, "--nesterov is for --opt sgd, not for lamb"},
    {"train --data-path @shapes --model resnet20 -b 4 --opt lamb --agc 0.01", 2, "adaptive clipping and lamb"},
    {"train --data-path @shapes --model resnet20 -b 4 --bce-target-thresh 0.2", 2, "is for --loss bce, not for ce"},
    {"train --data-path @shapes --model resnet20 -b 4 --loss bce --bce-target-thresh 1", 2, "lies in 0 to below 1"},
    {"train --data-path @shapes --model resnet20 -b 4 --drop-path 1", 2, "drop_path is 1.0"},
    {"train --data-path @shapes --model lenet -b 4 --drop-path 0.1", 2, "'lenet' has no residual blocks"},
    {"train --data-path @shapes --model resnet20 -b 4 --clip-grad 1 --agc 0.01", 2, "exclude each other"},
    {"train --data-path @shapes --param-group conv", 2, "expected 'PATTERN:lr=0.1,wd=0,epochs=3'"},
    {"train --data-path @shapes --param-group conv:epochs=x", 2, "expected a number of at least 0, found 'x'"},
    {"train --data-path @shapes --muon-momentum 0.5", 2, "--muon-momentum is for --opt muon, not for sgd"},
    {"train --data-path @shapes --model resnet20 --whiten 9", 2, "layer 'conv1': a convolution that whitens"},
    {"train --data-path @shapes --views 3", 2, "--views: expected one of 1, 2, 5, 6, 10, found 3"},
    {"eval --data-path @shapes --checkpoint @cut.safetensors --views 4", 2, "expected one of 1, 2, 5, 6, 10, found 4"},
    {"train --data-path @shapes --model resnet20 -b 4 -q --val-crop-size 32 --val-resize-size 24 --views 5", 2,
     "crops of 32 pixels, and pictures are resized to 24; resize them to at least 32 (--val-resize-size)"},
    {"train --data-path @shapes --model resnet20 -b 4 -q --min-res 16", 2, "(--end-ramp), found 0 and 0"},
    {"train --data-path @shapes --model resnet20 -b 4 -q --min-res 48 --end-ramp 2", 2,
     "is 1 to 32, the side that they end with (--train-crop-size); found 48"},
    {"train --data-path @shapes --end-ramp 2", 2, "--min-res"},
    {"train --data-path @shapes --model lenet -b 4 -q --min-res 28 --end-ramp 2 --train-crop-size 32", 2,
     "pictures that grow (--min-res) need a network that takes pictures of any size, and this one does not take"},
    {"augment --data-path @shapes --model resnet20 --explain --mixup 1 -b 1000", 3, "fewer than one batch of 1000"},
    {"train --data-path @shapes --param-group conv:rate=1", 2, "unknown setting 'rate=1'"},
    {"train --data-path @shapes --model resnet20 -b 4 --freeze nothing", 2, "no parameter's name has 'nothing'"},
    {"train --data-path @shapes --model resnet20 -b 4 --freeze .", 2, "every parameter is frozen"},
    {"train --data-path @shapes --model resnet20 -b 4 --accum 4", 3, "fewer than the 4 of one update"},
    {"train --data-path @shapes --sched cosine --lr-power 2", 2, "--lr-power is for --lr-scheduler polynomial"},
    {"train --data-path @shapes --sched multistep", 2, "needs --lr-milestones"},
    {"train --data-path @shapes --sched multistep --lr-milestones 3,2", 2, "ascending order, found 3,2"},
    {"train --data-path @shapes --sched one-cycle --lr-warmup-epochs 1", 2, "rises and falls by itself"},
    {"train --data-path @shapes --lr 0.1 --lr-min 0.2", 2, "--lr-min 0.2 is above --lr 0.1"},
    {"train --data-path @shapes --model resnet20 -b 4 --epochs 1 --lr-warmup-epochs 2", 2, "longer than the training"},
    {"train --data-path @shapes --keep -1", 2, "--keep: expected at least 0, found -1"},
    {"train --data-path @shapes --keep 2", 2, "--keep needs --output-dir"},
    {"train --data-path @shapes --tensorboard", 2, "--tensorboard needs --output-dir"},
    {"train --data-path @shapes --best-metric f1", 2, "--best-metric"},
    {"train --data-path @shapes --nan-policy ignore", 2, "--nan-policy"},
    {"train --data-path @shapes --bad-images drop", 2, "--bad-images"},
    {"train --data-path @shapes/train --model resnet20 -b 4 -q --early-stop 2", 2,
     "--early-stop needs a validation set"},
    {"train --data-path @shapes --model resnet20 -b 4 -q --output-dir @text.txt/run", 1, "cannot make the folder"},
    {"eval --data-path @shapes", 2, "--checkpoint"},
    {"eval --data-path @shapes --checkpoint @missing", 3, "missing"},
    {"eval --data-path @shapes --checkpoint @cut.safetensors", 3, "cut.safetensors"},
    {"eval --data-path @shapes --model resnet20 --weights @text.txt", 3, "text.txt"},
    {"predict --model resnet20 --weights @cut.safetensors a.jpg", 2, "--num-classes"},
    {"predict @empty --checkpoint @cut.safetensors", 3, "no pictures"},
    {"inspect --model resnet50x", 2, "did you mean 'resnet50'?"},
    {"inspect", 2, "--model NAME, --checkpoint FILE or --list"},
    {"inspect --model lenet --checkpoint @cut.safetensors", 2, "--model"},
    {"inspect --list --model lenet", 2, "--list"},
    {"inspect --model @missing.json", 3, "missing.json"},
    {"inspect --model @text.json", 3, "text.json: it is not JSON"},
    {"train --data-path @shapes --model resnet20 --weights a --finetune b", 2, "--finetune"},
    {"train --config @missing.toml", 3, "missing.toml"},
    {"train --config @broken.toml", 3, "broken.toml:2:"},
    {"train --config @typo.toml", 2, "typo.toml:2: unknown flag 'epoch', did you mean 'epochs'?"},
    {"train --config @twice.toml", 2, "twice.toml:2: 'batch_size' is given twice"},
    {"train --config @switch.toml", 2, "switch.toml:1: 'nesterov' is true or false"},
    {"train --config @nested.toml", 2, "nested.toml:1: 'config' belongs on the command line"},
    {"train --config", 2, "--config"},
    {"synth @shapes", 2, "is not an empty folder"},
    {"inspect --model lenet --export-json @x.txt", 2, "expected a name that ends in .json"},
    {"inspect --checkpoint @cut.safetensors --num-classes 7", 2, "a checkpoint says its own"},
    {"pack --data-path @shapes --out @none/x.cvt", 1, "none/x.cvt: No such file or directory\n"},
    {"synth /proc/none", 1, "/proc/none: cannot be written"},
    {"eval --data-path @shapes --checkpoint a --confusion @m.pdf", 2,
     "m.pdf': expected a name that ends in .txt, .csv"},
    {"eval --data-path @shapes --checkpoint a --topk 0", 2, "--topk: expected at least 1"},
    {"augment --data-path @shapes --out @sheet.jpg", 2, "sheet.jpg': expected a name that ends in .png"},
    {"augment --data-path @shapes --out @no/sheet.png --model resnet20 --count 1", 1, "no/sheet.png"},
    {"augment --data-path @shapes --out @sheet.png --shear 95", 2, "shear must be 0 to 89 degrees, found 95"},
    {"augment --data-path @empty --out @sheet.png", 3, "empty"},
    {"report @missing", 3, "is no run: expected the --output-dir of convolt train"},
    {"report @run", 3, "is no run"},
    {"report", 2, "run is required"},
    {"tune", 2, "give one of --model NAME, --checkpoint FILE, --list, --clear, --export FILE and --import FILE"},
    {"tune --list --clear", 2, "give one of"},
    {"tune --model lenet --autotune off", 2, "--autotune off times nothing"},
    {"tune --model lenet --autotune fast", 2, "expected one of off, quick, full, found fast"},
    {"tune --model lenet --workspace-limit 12X", 2, "expected a size such as 64K, 512M or 2G, found '12X'"},
    {"tune --model lenet --workspace-limit 8589934592G", 2, "expected a size"},
    {"tune --model lenet --dtype f16 --workspace-limit 0", 4, "a workspace of at most 0 bytes (--workspace-limit)"},
    {"tune --model lenet --dtype f16 --workspace-limit 2K", 4, "a workspace of at most 2048 bytes"},
    {"tune --import @missing", 3, "missing"},
    {"tune --import @text.txt", 3, "text.txt: it holds no kernel timings of Convolt"},
    {"tune --export @run", 1, "it is a directory"},
    {"bench", 2, "subcommand"},
    {"bench krenels", 2, "unknown word 'krenels', did you mean 'kernels'?"},
    {"bench kernels --sample 9", 2,
     "unknown flag '--sample', did you mean '--samples'?\nsee convolt bench kernels --help"},
    {"bench kernels --samples 2", 2, "--samples: expected 3 to"},
    {"bench kernels --tensor-size 0", 2, "--tensor-size: expected 0.001 to 1000000, found 0"},
    {"bench kernels --filter bnapply", 2, "no kernel's name has that in it, did you mean 'bn_apply'?"},
    {"bench kernels --json --csv", 2, "exclude"},
    {"bench kernels --output @k.txt", 2, "k.txt': expected a name that ends in .json or .csv"},
    {"bench kernels --fail-if-slower", 2, "--compare"},
    {"bench kernels --compare @missing", 3, "missing"},
    {"bench kernels --compare @text.json", 3, "text.json' is no record of convolt bench"},
    {"bench compare @text.json @text.json", 3, "text.json' is no record of convolt bench"},
    {"bench step --model resnet2O", 2, "did you mean 'resnet20'?"},
    {"bench step --accum 2", 2, "leave out --accum"},
    {"bench step -b 0", 2, "--batch-size: expected at least 1"},
    {"bench conv --model lenet --filter nothing", 2, "no layer and pass"},
    {"bench augment --crop-padding 4 --scale 0.5,1", 2, "two ways to crop"},
    {"train --data-path @shapes --model lenet --max-pixels 0", 2, "--max-pixels: expected at least 1, found 0"},
    {"train --data-path @shapes --model resnet20 -b 4 --max-pixels 1000", 3,
     "expected at most 1000; it is not a picture that can be read, nor is any other of the 12"},
    {"train --data-path @shapes --model lenet --background 0.1,0.2", 2,
     "--background takes one value or three, found 2"},
    {"train --data-path @shapes --model lenet --background 255", 2, "--background: expected levels in 0..1, found 255"},
    {"train --data-path @shapes --decoder gpu", 2, "--decoder: expected one of auto, cpu, nvjpeg, found gpu"},
    {"train --data-path @shapes --model resnet20 -b 4 --device cpu --decoder nvjpeg", 4,
     "the decoder nvjpeg needs a CUDA device, found cpu: use --device cuda, or --decoder cpu"},
    {"bench loader --data-path @shapes --model resnet20 -b 4 --device cpu --decoder nvjpeg", 4, "needs a CUDA device"},
    {"verify --data-path @shapes --max-pixels 0", 2, "--max-pixels: expected at least 1, found 0"},
    {"bench loader", 2, "--data-path is required"},
    {"bench loader --data-path @shapes -j 0", 2, "expected whole numbers from 1, found 0"},
    {"bench loader --data-path @shapes -b 4 --loader-memory 1K", 2, "two batches of 4 pictures take"},
    {"train --data-path @shapes --model resnet20 -b 4 -q --loader-memory 1K", 2, "two batches of 4 pictures take"},
    {"train --data-path @shapes --loader-memory 1Q", 2, "--loader-memory: expected a size such as"},
    {"bench loader --data-path @missing", 3, "no such file or folder"},
    {"bench roofline --out @r.jpg", 2, "r.jpg': expected a name that ends in .png"},
};

class Errors : public testing::TestWithParam<Case> {
protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    ASSERT_EQ(convolt("synth '" + folder_->path("shapes") +
                      "' --classes 2 --train-per-class 6 --val-per-class 2 --min-side 32 --max-side 48")
                  .code,
              0);
    std::filesystem::create_directory(folder_->path("empty"));
    std::filesystem::create_directory(folder_->path("run"));
    std::ofstream(folder_->path("run/metrics.jsonl")) << "{}\n";
    std::ofstream(folder_->path("text.json")) << "no network here\n";
    std::ofstream(folder_->path("text.txt")) << "no pictures here\n";
    std::ofstream(folder_->path("broken.toml")) << "lr = 0.1\nepochs 3\n";
    std::ofstream(folder_->path("typo.toml")) << "lr = 0.1\nepoch = 3\n";
    std::ofstream(folder_->path("twice.toml")) << "batch-size = 4\nbatch_size = 8\n";
    std::ofstream(folder_->path("switch.toml")) << "nesterov = 0.9\n";
    std::ofstream(folder_->path("nested.toml")) << "config = 'other.toml'\n";
    std::ofstream(folder_->path("cut.safetensors"), std::ios::binary).write("\x00\x10\x00\x00\x00\x00\x00\x00{", 9);
  }
  static void TearDownTestSuite() { delete folder_; }
  static TempFolder* folder_;
};
TempFolder* Errors::folder_ = nullptr;

TEST_P(Errors, OneSentenceAndTheRightCode) {
  std::string arguments = GetParam().arguments;
  for (size_t at; (at = arguments.find('@')) != std::string::npos;) arguments.replace(at, 1, folder_->path());
  const Outcome o = convolt(arguments);
  EXPECT_EQ(o.code, GetParam().code) << o.error;
  EXPECT_THAT(o.error, HasSubstr(GetParam().says));
  EXPECT_EQ(o.out, "");
  EXPECT_THAT(o.error, testing::Not(HasSubstr("terminate")));
}
INSTANTIATE_TEST_SUITE_P(Cli, Errors, testing::ValuesIn(kCases));

TEST(Device, CudaWhereThereIsNone) {
  const TempFolder folder;
  ASSERT_EQ(convolt("synth '" + folder.path("s") + "' --classes 2 --train-per-class 2 --val-per-class 1").code, 0);
  const Outcome o = convolt("train --device cuda:99 --data-path '" + folder.path("s") + "'");
  EXPECT_EQ(o.code, 4) << o.error;
}

#ifdef CONVOLT_IMGCODECS
TEST(Opencv, WithoutItsCodersSaysWhatToInstall) {
  const TempFolder folder;
  std::ofstream(folder.path(CONVOLT_IMGCODECS)) << "no library";
  const char* before = std::getenv("LD_LIBRARY_PATH");
  const std::string path = before == nullptr ? "" : before;
  setenv("LD_LIBRARY_PATH", (folder.path() + ":" + path).c_str(), 1);
  const Outcome o = convolt("synth '" + folder.path("shapes") + "' --train-per-class 1");
  before == nullptr ? unsetenv("LD_LIBRARY_PATH") : setenv("LD_LIBRARY_PATH", path.c_str(), 1);
  EXPECT_EQ(o.code, 1);
  EXPECT_THAT(o.error, HasSubstr("install its imgcodecs library as " CONVOLT_IMGCODECS));
  EXPECT_EQ(std::count(o.error.begin(), o.error.end(), '\n'), 1) << o.error;
}
#endif

TEST(Help, EveryCommandHasOne) {
  for (const char* command : {"", "train", "eval", "predict", "inspect", "synth", "models", "augment", "report", "tune",
                              "bench", "bench kernels", "bench step", "bench conv", "bench augment", "bench loader",
                              "bench roofline", "bench compare"}) {
    const Outcome o = convolt(std::string(command) + " --help");
    EXPECT_EQ(o.code, 0);
    EXPECT_THAT(o.out, HasSubstr("Example"));
  }
  EXPECT_THAT(convolt("--version").out, HasSubstr("convolt 0."));
  const std::string help = convolt("train --help").out;
  for (const char* flag : {"--data-path",
                           "--val-data-path",
                           "--data-format",
                           "--model",
                           "--weights",
                           "--num-classes",
                           "--epochs",
                           "--steps",
                           "--batch-size",
                           "--workers",
                           "--device",
                           "--dtype",
                           "--amp",
                           "--lr",
                           "--momentum",
                           "--nesterov",
                           "--wd",
                           "--weight-decay",
                           "--lr-scheduler",
                           "--sched",
                           "--lr-warmup-epochs",
                           "--lr-warmup-factor",
                           "--lr-cooldown-epochs",
                           "--lr-step-size",
                           "--lr-gamma",
                           "--lr-milestones",
                           "--lr-min",
                           "--lr-power",
                           "--lr-restarts",
                           "--lr-cycle-mult",
                           "--plateau-patience",
                           "--plateau-factor",
                           "--opt",
                           "--betas",
                           "--eps",
                           "--alpha",
                           "--norm-weight-decay",
                           "--bias-weight-decay",
                           "--layer-decay",
                           "--freeze",
                           "--param-group",
                           "--clip-grad",
                           "--agc",
                           "--accum",
                           "--ema-decay",
                           "--label-smoothing",
                           "--smoothing",
                           "--train-crop-size",
                           "--val-crop-size",
                           "--val-resize-size",
                           "--crop-padding",
                           "--scale",
                           "--ratio",
                           "--hflip",
                           "--alternating-flip",
                           "--views",
                           "--min-res",
                           "--start-ramp",
                           "--end-ramp",
                           "--res-step",
                           "--whiten",
                           "--muon-momentum",
                           "--muon-iterations",
                           "--muon-renormalize",
                           "--vflip",
                           "--rotate",
                           "--translate",
                           "--zoom",
                           "--color-jitter",
                           "--random-erase",
                           "--reprob",
                           "--mixup",
                           "--cutmix",
                           "--mixup-prob",
                           "--mixup-switch-prob",
                           "--mixup-mode",
                           "--mixup-off-epoch",
                           "--mean",
                           "--std",
                           "--max-side",
                           "--max-pixels",
                           "--full-decode",
                           "--decoder",
                           "--background",
                           "--resident",
                           "--memory-budget",
                           "--threads",
                           "--autotune",
                           "--workspace-limit",
                           "--deterministic",
                           "--seed",
                           "--resume",
                           "--checkpoint-every",
                           "--output-dir",
                           "--config",
                           "--overwrite",
                           "--log-every",
                           "--keep",
                           "--best-metric",
                           "--early-stop",
                           "--nan-policy",
                           "--bad-images",
                           "--tensorboard",
                           "--quiet"})
    EXPECT_THAT(help, HasSubstr(flag));
}

}  // namespace
}  // namespace convolt::test
