// Convolutions through cuDNN's graph API. The only file that includes cudnn_frontend.h, which takes half a minute to
// compile.
#include <cudnn_frontend.h>

#include <algorithm>
#include <charconv>
#include <mutex>
#include <optional>

#include "conv/cuda_provider.h"
#include "conv/cudnn_graphs.h"
#include "conv/described_device.h"
#include "device/dynamic_library.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // the frontend wants this variable; load_cudnn() sets it, once
}

namespace convolt {
namespace {

using namespace cudnn_graphs;

// More than this many plans of one mode for one shape only cost tuning time.
constexpr size_t kMaxCandidates = 8;
// Plans that want more come after those that do not: some weight gradients of depthwise layers ask for over a gigabyte.
constexpr int64_t kLargeWorkspace = int64_t{512} << 20;

void load_cudnn() {
  static const bool loaded = [] {
    fe::cudnn_dlhandle = DynamicLibrary("cuDNN 9", {"libcudnn.so.9"}).handle();
    return true;
  }();
  (void)loaded;
}

void check(fe::error_t status, const char* what) {
  if (status.is_bad()) throw DeviceError(std::string(what) + " failed: " + status.get_message());
}
void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw DeviceError(std::string(what) + " failed: " + fe::detail::get_error_string(status));
}

// A handle and the lock that makes its stream belong to one launch at a time.
class Handle {
public:
  Handle() {
    load_cudnn();
    check(fe::detail::create_handle(&handle_), "starting cuDNN");
  }
  ~Handle() { fe::detail::destroy_handle(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  cudnnHandle_t get() const { return handle_; }
  std::mutex& mutex() { return mutex_; }

private:
  cudnnHandle_t handle_ = nullptr;
  std::mutex mutex_;
};

// Where plans are made for: a real device through its handle, or a described one.
struct Target {
  cudnnHandle_t handle = nullptr;
  std::shared_ptr<fe::DeviceProperties> description;
  int sm_version = 0;  // 90
};

// f32 means f32: products on tensor cores round their inputs to tf32. Sums are f32 in every type.
bool keeps_precision(const Graph& graph, int64_t index, const ConvDesc& desc) {
  const bool rounds_inputs =
      graph.has(index, fe::NumericalNote_t::TENSOR_CORE) || graph.has(index, fe::NumericalNote_t::DOWN_CONVERT_INPUTS);
  if (desc.dtype == DType::f32 && !desc.tf32 && rounds_inputs) return false;
  // Winograd's transforms of large tiles lose half the digits of f32.
  return !graph.has(index, fe::NumericalNote_t::REDUCED_PRECISION_REDUCTION) &&
         !graph.has(index, fe::NumericalNote_t::WINOGRAD_TILE_13x13);
}

// One built plan of a graph.
struct BuiltPlan {
  int64_t index = 0;
  PlanReport report;
};

bool holds(const std::vector<BuiltPlan>& plans, const std::string& name) {
  return std::any_of(plans.begin(), plans.end(), [&](const BuiltPlan& p) { return p.report.name == name; });
}

// Weight gradients that lose digits though their plans do not say so, seen with cuDNN 9.19 on an H200: engine 17 in f32
// (1e-3 of a 5x5's), and engine 47 in 16 bits where it splits its sums ("k0"), the parts of which it rounds.
bool rounds_parts(const std::string& name, const ConvDesc& desc) {
  if (desc.pass != ConvPass::wgrad) return false;
  if (desc.dtype == DType::f32) return !desc.tf32 && name.starts_with("cudnn eng17_");
  constexpr std::string_view kSplits = "cudnn eng47_k0=";
  return name.starts_with(kSplits) && name.compare(kSplits.size(), 2, "1_") != 0 &&
         name.compare(kSplits.size(), 2, "0_") != 0;
}

// Tries the plan at `index`; nullopt where it does not fit the description, is among the plans already, as those are
// that mode A names and cuDNN falls back on too, or cannot be built.
std::optional<BuiltPlan> build_plan(Graph& graph, int64_t index, const ConvDesc& desc,
                                    const std::vector<BuiltPlan>& already) {
  BuiltPlan plan{index, {}};
  check(graph.get_plan_name_at_index(index, plan.report.name), "asking for the name of a cuDNN plan");
  plan.report.name = "cudnn " + plan.report.name;
  if (!keeps_precision(graph, index, desc) || rounds_parts(plan.report.name, desc)) return std::nullopt;
  if (holds(already, plan.report.name)) return std::nullopt;
  if (graph.build_plan_at_index(index).is_bad()) return std::nullopt;
  check(graph.get_workspace_size_plan_at_index(index, plan.report.workspace_bytes), "asking for cuDNN's workspace");
  plan.report.repeatable = !graph.has(index, fe::NumericalNote_t::NONDETERMINISTIC) && !cudnn_adds_in_any_order(desc);
  return plan;
}

// Up to kMaxCandidates plans in the order of cuDNN's heuristics, at least one of them repeatable if any is.
std::vector<BuiltPlan> build_plans(Graph& graph, const ConvDesc& desc, bool runtime_compiled) {
  std::vector<BuiltPlan> built;
  bool repeatable = cudnn_adds_in_any_order(desc);  // then no plan is, and none is searched for
  for (int64_t i = 0; i < graph.get_execution_plan_count(); ++i) {
    if (graph.has(i, fe::BehaviorNote_t::RUNTIME_COMPILATION) != runtime_compiled) continue;
    if (built.size() >= kMaxCandidates && (repeatable || graph.has(i, fe::NumericalNote_t::NONDETERMINISTIC))) continue;
    if (auto plan = build_plan(graph, i, desc, built)) {
      repeatable = repeatable || plan->report.repeatable;
      built.push_back(std::move(*plan));
      if (runtime_compiled) break;
    }
  }
  std::stable_partition(built.begin(), built.end(),
                        [](const BuiltPlan& plan) { return plan.report.workspace_bytes <= kLargeWorkspace; });
  return built;
}

// A graph and the plans that cuDNN has for it; no plans where the library does not know the combination.
struct Search {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  std::vector<BuiltPlan> plans;
};

Search search(const ConvDesc& desc, const Target& target, const std::vector<fe::HeurMode_t>& modes) {
  Search result;
  if (!is_offered(desc)) return result;
  Graph& graph = *result.graph;
  graph.set_io_data_type(cudnn_type(desc.dtype))
      .set_intermediate_data_type(intermediate_type(desc))
      .set_compute_data_type(fe::DataType_t::FLOAT);
  graph.set_sm_version(target.sm_version);
  // A captured step lives no longer than the plan that owns these kernels.
  graph.set_cuda_graph_retention(fe::CudaGraphRetention_t::NONE);
  if (target.description) graph.set_device_properties(target.description);
  describe_operation(graph, desc);
  check(graph.validate(), "describing a convolution to cuDNN");
  const auto graph_status = target.handle ? graph.build_operation_graph(target.handle) : graph.build_operation_graph();
  if (graph_status.is_bad()) return result;
  if (graph.create_execution_plans(modes).is_bad()) return result;
  result.plans = build_plans(graph, desc, false);
  // Engines that are compiled at run time take seconds for each shape at each start: worth it where a convolution would
  // not run at all, not for an epilogue that the caller can do in a sweep of its own.
  if (result.plans.empty() && desc.epilogue == ConvEpilogue::none) result.plans = build_plans(graph, desc, true);
  return result;
}

// Mode B is asked by itself, for eight of its own: among those of mode A they would come too late. For many shapes
// cuDNN answers both modes alike.
std::vector<Search> searches(const ConvDesc& desc, const Target& target, Heuristics heuristics) {
  std::vector<Search> found;
  found.push_back(search(desc, target, {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}));
  if (heuristics == Heuristics::a || found[0].plans.empty()) return found;
  found.push_back(search(desc, target, {fe::HeurMode_t::B}));
  std::erase_if(found[1].plans, [&](const BuiltPlan& b) { return holds(found[0].plans, b.report.name); });
  return found;
}

// The frontend throws its own exceptions now and then.
template <class F>
auto translating_errors(F f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw DeviceError(std::string("cuDNN failed: ") + e.what());
  }
}

class CudnnKernel final : public ConvKernel {
public:
  CudnnKernel(std::shared_ptr<Handle> handle, std::shared_ptr<Graph> graph, BuiltPlan plan, const ConvDesc& desc)
      : handle_(std::move(handle)), graph_(std::move(graph)), plan_(std::move(plan)), desc_(desc) {}

  std::string name() const override { return plan_.report.name; }
  int64_t workspace_bytes() const override { return plan_.report.workspace_bytes + unused_bytes(desc_); }
  bool repeatable() const override { return plan_.report.repeatable; }

  void run(Stream s, const ConvArgs& args) const override {
    Pointers pointers = pointers_of(desc_, args);
    const std::lock_guard lock(handle_->mutex());
    check(fe::detail::set_stream(handle_->get(), static_cast<cudaStream_t>(s.handle)), "giving cuDNN a stream");
    translating_errors([&] {
      check(graph_->execute_plan_at_index(
                handle_->get(), pointers.p.data(), pointers.n,
                args.workspace ? static_cast<char*>(args.workspace) + unused_bytes(desc_) : nullptr, plan_.index),
            plan_.report.name.c_str());
    });
  }

private:
  std::shared_ptr<Handle> handle_;
  std::shared_ptr<Graph> graph_;  // shared by the plans of one description
  BuiltPlan plan_;
  ConvDesc desc_;
};

class Cudnn final : public ConvLibrary {
public:
  Cudnn() {
    cudaDeviceProp properties{};
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess || cudaGetDeviceProperties(&properties, device) != cudaSuccess)
      throw DeviceError("the properties of the CUDA device could not be read");
    sm_version_ = properties.major * 10 + properties.minor;
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc, Heuristics heuristics) override {
    const std::lock_guard lock(handle_->mutex());
    std::vector<std::unique_ptr<ConvKernel>> kernels;
    for (const Search& found : answer(desc, heuristics))
      for (const BuiltPlan& plan : found.plans)
        kernels.push_back(std::make_unique<CudnnKernel>(handle_, found.graph, plan, desc));
    return kernels;
  }
  std::string version() const override { return cudnn_version(); }

private:
  // Asked once: a planner asks for the same convolution several times over, and building plans takes long.
  struct Answer {
    ConvDesc desc;
    Heuristics heuristics;
    std::vector<Search> searches;
  };

  const std::vector<Search>& answer(const ConvDesc& desc, Heuristics heuristics) {
    for (const Answer& a : answers_)
      if (a.desc == desc && a.heuristics == heuristics) return a.searches;
    const Target target{handle_->get(), nullptr, sm_version_};
    answers_.push_back({desc, heuristics, translating_errors([&] { return searches(desc, target, heuristics); })});
    return answers_.back().searches;
  }

  std::shared_ptr<Handle> handle_ = std::make_shared<Handle>();
  int sm_version_ = 0;
  std::vector<Answer> answers_;
};

// "deviceVer":900 in the description is compute capability 9.0.
int sm_version_of(const std::string& device_json) {
  constexpr std::string_view kKey = "\"deviceVer\":";
  const size_t at = device_json.find(kKey);
  int version = 0;
  if (at != std::string::npos)
    std::from_chars(device_json.data() + at + kKey.size(), device_json.data() + device_json.size(), version);
  if (version < 100)
    throw FormatError("the device description has no \"deviceVer\":NNN (900 for compute capability 9.0)");
  return version / 10;
}

}  // namespace

std::unique_ptr<ConvLibrary> make_cudnn() { return std::make_unique<Cudnn>(); }

std::vector<PlanReport> deviceless_plans(const ConvDesc& desc, const std::string& device_json, Heuristics heuristics) {
  load_cudnn();
  return translating_errors([&] {
    Target target{nullptr, std::make_shared<fe::DeviceProperties>(), sm_version_of(device_json)};
    if (target.description->deserialize({device_json.begin(), device_json.end()}).is_bad())
      throw FormatError("cuDNN does not accept the device description: " + fe::detail::get_last_error_string_());
    std::vector<PlanReport> reports;
    for (Search& found : searches(desc, target, heuristics))
      for (BuiltPlan& plan : found.plans) reports.push_back(std::move(plan.report));
    return reports;
  });
}

std::string device_description() {
  load_cudnn();
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) throw DeviceError("there is no current CUDA device");
  return translating_errors([&] {
    fe::DeviceProperties properties;
    std::vector<uint8_t> json;
    auto status = properties.set_device_id(device).build();
    if (status.is_good()) status = properties.serialize(json);
    if (status.is_bad()) throw DeviceError("cuDNN does not describe this device: " + status.get_message());
    while (!json.empty() && json.back() == 0) json.pop_back();
    return std::string(json.begin(), json.end());
  });
}

std::string cudnn_version() {
  load_cudnn();
  return "cuDNN " + fe::detail::get_backend_version_string();
}

}  // namespace convolt
