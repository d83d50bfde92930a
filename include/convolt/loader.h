// The asynchronous loader: decode threads fill pinned slots, the copy queue moves them, the trainer takes them in
// order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "convolt/augment.h"
#include "convolt/context.h"
#include "convolt/dataset.h"
#include "convolt/mixing.h"
#include "convolt/step.h"

namespace convolt {

class Trace;  // of profiles; src/io/trace.h

// What becomes of a sample that cannot be read. replace: in training another sample takes its place, drawn by a pure
// function; in evaluation as skip. skip: its row is an empty picture of weight 0, which counts for nothing (but that
// batch norm sees it). fail: DataError that names it.
enum class BadSamplePolicy : uint8_t { replace, skip, fail };

// Which samples an epoch of training shows; its length is the data set's in any case.
enum class Sampler : uint8_t {
  shuffle,   // each once, in an order of the epoch's own
  balanced,  // each class as often as any other, and its samples in turn
  weighted,  // at random, each as often as its Dataset::weight() is part of all, which then has no say in the loss
};

// What decodes JPEGs; all else is decoded on the CPU.
enum class Decoder : uint8_t {
  automatic,  // cpu: bits are a contract, and nothing that was measured speaks for another one
  cpu,        // libjpeg-turbo
  // NVIDIA's library, for a CUDA device: the CPU reads the Huffman codes, the device makes the pixels of them, which
  // differ from the CPU's by roundings. For JPEGs that are whole, sequential, upright, grey or YCbCr, of full size;
  // the CPU decodes the others, and says what is wrong with those that cannot be read.
  nvjpeg,
};

// How a data set becomes batches.
struct LoaderOptions {
  int batch = 128;       // rows of each batch
  int threads = 2;       // decode threads (-j), at least 1
  bool training = true;  // shuffle, drop the incomplete last batch; else in order, pad the last batch with rows of
                         // weight 0
  Sampler sampler = Sampler::shuffle;  // training: which samples, in which order
  // Training: so many rows one after the other show the same sample, each drawn anew. An epoch stays as long, so it
  // shows that part of the samples (repeated augmentation: E. Hoffer et al., arXiv 1901.09335).
  int repeats = 1;
  BadSamplePolicy bad_samples = BadSamplePolicy::replace;  // what becomes of those that cannot be read
  // A sample whose label is no smaller, or negative in evaluation, is one of them; 0: labels are not looked at.
  int64_t classes = 0;
  // A data set with a larger part of bad samples ends with an error, whatever becomes of each; 0: the first one does.
  double max_bad = 1;
  uint64_t seed = 0;  // of order, replacements and augmentation
  DecodeOptions decode;
  Decoder decoder = Decoder::automatic;  // of JPEGs; a resident set has the CPU's
  double max_decode_seconds = 2;         // of processor time; a sample that took longer is a bad picture from then on
  int slots = 3;                         // batches in flight, at least 2
  // Bytes of host memory that batches in flight and decode threads may take, 0: any number. Where `slots` of them do
  // not fit there are fewer, at least 2. A resident set and nvJPEG take their own.
  int64_t memory = 0;
  bool resident = false;   // all pictures are decoded before the first batch and stay in device memory
  AugmentOptions augment;  // what records tell the device to do; its `height` and `width` set decode.max_side
  SizeRamp sizes;          // training: how large pictures are by epoch, up to the size of `augment`
  MixOptions mixing;       // training: how rows are mixed; pictures that cannot be read and their partners never are
  int group = 1;           // training: an epoch has a multiple of so many batches (the micro-batches of an update)
  // Which of several loaders that share the work this is. The global batch has batch * group * ranks rows (evaluation:
  // batch * ranks), of which each rank gets its part in one piece. What is in a row of it depends on nothing else, but
  // that `mixing` pairs the rows of one batch of one rank, so a training may go on with other numbers that have the
  // same product. All ranks have equally many batches.
  int rank = 0, ranks = 1;
  Trace* trace = nullptr;  // gets a track for each decode thread and one for the copies; must outlive the loader
  int64_t first_step =
      0;  // training: resume so that the first batch is that of this step (step = epoch * steps_per_epoch + batch)
};

// A batch on the device. Valid until it is released.
struct Batch {
  int64_t step = 0;                       // training: counts over all epochs; evaluation: from 0
  int64_t epoch = 0;                      // from 0
  int64_t index = 0;                      // of the batch in its epoch
  int64_t first_row = 0;                  // of the rank's part of the global batch, as StepInput's
  int size = 0;                           // rows of the arrays: LoaderOptions::batch
  int rows = 0;                           // rows with a sample (the others are padding)
  float weight_sum = 0;                   // of `weights`
  const SampleRecord* records = nullptr;  // device [batch]
  const uint8_t* pixels = nullptr;        // device
  const int32_t* labels = nullptr;        // device [batch]
  const float* weights = nullptr;         // device [batch]
  const RowMix* mixes = nullptr;          // device [batch]; null where the loader's options mix nothing
  const int64_t* samples = nullptr;       // host [batch]: index in the data set, -1 for padding
  const uint8_t* skipped = nullptr;       // host [batch]: 1 where the sample could not be read
  int slot = -1;                          // the loader's own mark, for release()
};

// What a plan's step reads of a batch. The seed and the learning rate are the caller's to fill in.
StepInput input_of(const Batch& batch);

// A sample that could not be used, each named once.
struct BadSample {
  std::string name;    // Dataset::name()
  std::string reason;  // in one sentence
};

// Where the time of a loader went so far, in seconds of wall time.
struct LoaderTimes {
  double waited = 0;  // the consumer in next(), for a batch
  // All decode threads together: for samples from their source, for decoding them, and for room, until the copy out of
  // it to the device had ended.
  double read = 0, decode = 0, copy = 0;
};

// The life of a slot: Free -> Decoding -> Copying -> Ready -> InUse -> Free. All methods are called by one consumer
// thread, but stop(), bad_samples(), times() and slot_bytes(), which any thread may call. The same bits in every batch
// for any number of threads; only where a picture lies in the slot (SampleRecord::offset) may differ.
class Loader {
public:
  // Reads the headers of all samples (in parallel) to size the slots: memory is allocated here and never again
  // (nvJPEG's own grows with the largest picture so far). Throws DataError when training with a batch larger than the
  // set, UsageError where two batches need more than the options' memory, DeviceError where the decoder cannot be had.
  // Data set and context must outlive the loader.
  static std::unique_ptr<Loader> create(Context& context, const Dataset& dataset, const LoaderOptions& options);
  virtual ~Loader() = default;
  virtual int64_t steps_per_epoch() const = 0;
  // The next batch in order; makes the compute queue wait for its copy. Blocks while it is being decoded. Training goes
  // on over epochs without end; evaluation returns false after its last batch (call restart() to begin again). Rethrows
  // a worker's exception, which names the sample: DataError also where no sample of a training batch can be read.
  virtual bool next(Batch& batch) = 0;
  // Gives the slot back once the compute queue has passed everything submitted so far.
  virtual void release(const Batch& batch) = 0;
  // Evaluation: begin again from the first batch. All batches must have been released.
  virtual void restart() = 0;
  // Wakes every thread and makes next() throw; the destructor does it too.
  virtual void stop() = 0;
  // What the batches so far could not use, in the order of their rows: the same for any threads. Of a resident set, in
  // the order of the samples.
  virtual std::vector<BadSample> bad_samples() const = 0;
  virtual LoaderTimes times() const = 0;
  // Bytes of one slot (host and device each), beside which a resident set takes its own.
  virtual int64_t slot_bytes() const = 0;
};

}  // namespace convolt
