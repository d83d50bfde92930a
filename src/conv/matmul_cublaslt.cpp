// Matrix products through cuBLASLt, for fully connected layers.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "activation.h"
#include "conv/cuda_provider.h"
#include "conv/described_device.h"
#include "device/dynamic_library.h"

namespace convolt {
namespace {

constexpr int kMaxCandidates = 8;
// What NVIDIA recommends for Hopper; more buys nothing.
constexpr uint64_t kMaxWorkspace = uint64_t{32} << 20;

// The functions that are used, looked up once.
struct Api {
  DynamicLibrary library{"cuBLASLt", {"libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR)}};
  template <class Function>
  Function* find(const char* name) const {
    return library.symbol<Function>(name);
  }
  decltype(cublasLtCreate)* create = find<decltype(cublasLtCreate)>("cublasLtCreate");
  decltype(cublasLtDestroy)* destroy = find<decltype(cublasLtDestroy)>("cublasLtDestroy");
  decltype(cublasLtGetVersion)* get_version = find<decltype(cublasLtGetVersion)>("cublasLtGetVersion");
  decltype(cublasLtGetStatusString)* status_text = find<decltype(cublasLtGetStatusString)>("cublasLtGetStatusString");
  decltype(cublasLtMatmul)* matmul = find<decltype(cublasLtMatmul)>("cublasLtMatmul");
  decltype(cublasLtMatmulDescCreate)* create_desc =
      find<decltype(cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate");
  decltype(cublasLtMatmulDescDestroy)* destroy_desc =
      find<decltype(cublasLtMatmulDescDestroy)>("cublasLtMatmulDescDestroy");
  decltype(cublasLtMatmulDescSetAttribute)* set_desc =
      find<decltype(cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute");
  decltype(cublasLtMatrixLayoutCreate)* create_layout =
      find<decltype(cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate");
  decltype(cublasLtMatrixLayoutDestroy)* destroy_layout =
      find<decltype(cublasLtMatrixLayoutDestroy)>("cublasLtMatrixLayoutDestroy");
  decltype(cublasLtMatmulPreferenceCreate)* create_preference =
      find<decltype(cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate");
  decltype(cublasLtMatmulPreferenceDestroy)* destroy_preference =
      find<decltype(cublasLtMatmulPreferenceDestroy)>("cublasLtMatmulPreferenceDestroy");
  decltype(cublasLtMatmulPreferenceSetAttribute)* set_preference =
      find<decltype(cublasLtMatmulPreferenceSetAttribute)>("cublasLtMatmulPreferenceSetAttribute");
  decltype(cublasLtMatmulAlgoGetHeuristic)* get_heuristic =
      find<decltype(cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic");
  decltype(cublasLtMatmulAlgoConfigGetAttribute)* get_algorithm =
      find<decltype(cublasLtMatmulAlgoConfigGetAttribute)>("cublasLtMatmulAlgoConfigGetAttribute");
};

// The loaded library and its handle.
struct Lt {
  Api api;
  cublasLtHandle_t handle = nullptr;
  std::mutex mutex;  // of the descriptors, whose bias pointer is set for each launch

  Lt() { check(api.create(&handle), "starting cuBLASLt"); }
  ~Lt() { api.destroy(handle); }
  Lt(const Lt&) = delete;
  Lt& operator=(const Lt&) = delete;

  void check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError(std::string(what) + " failed: " + api.status_text(status));
  }
};

// Row-major tensors are column-major matrices with the extents swapped, so the product is written transposed:
// result^T [m, n] = op(a) op(b), inner extent k, each matrix given by its column-major rows and columns.
struct Product {
  struct Matrix {
    int64_t rows, columns;
    bool transposed = false;
  };
  Matrix a, b, result;
};

Product product_of(const LinearDesc& d) {
  const Product::Matrix x{d.in, d.rows}, w{d.in, d.out}, y{d.out, d.rows};
  switch (d.pass) {
    case ConvPass::fprop:  // y^T [out, rows] = w x^T
      return {{w.rows, w.columns, true}, x, y};
    case ConvPass::dgrad:  // dx^T [in, rows] = w^T dy^T
      return {w, y, x};
    case ConvPass::wgrad:  // dw^T [in, out] = x^T dy
      return {x, {y.rows, y.columns, true}, w};
  }
  throw Error("unknown pass of a matrix product");
}

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      throw DeviceError("cuBLASLt products take f32, bf16 or f16, found " + std::string(name_of(dtype)));
  }
}

cublasLtEpilogue_t epilogue_of(ConvEpilogue epilogue) {
  switch (epilogue) {
    case ConvEpilogue::bias:
      return CUBLASLT_EPILOGUE_BIAS;
    case ConvEpilogue::bias_relu:
      return CUBLASLT_EPILOGUE_RELU_BIAS;
    case ConvEpilogue::bias_relu_mask:
      return CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
    case ConvEpilogue::drelu_bias_gradient:
      return CUBLASLT_EPILOGUE_DRELU_BGRAD;
    case ConvEpilogue::bias_gradient:  // the gradient of y is the second factor, and its bias as long as the result
                                       // wide
      return CUBLASLT_EPILOGUE_BGRADB;
    default:
      return CUBLASLT_EPILOGUE_DEFAULT;
  }
}

// The descriptors of one product, owned; shared by the algorithms that can run it.
class Descriptors {
public:
  Descriptors(std::shared_ptr<Lt> lt, const LinearDesc& desc) : lt_(std::move(lt)), epilogue_(desc.epilogue) {
    const Product product = product_of(desc);
    const cudaDataType_t type = cuda_type(desc.dtype);
    const bool tf32 = desc.dtype == DType::f32 && desc.tf32;
    lt_->check(lt_->api.create_desc(&operation_, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "describing a product to cuBLASLt");
    set(CUBLASLT_MATMUL_DESC_TRANSA, product.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, product.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(desc.epilogue));
    // Where its pointers will point to decides which algorithms there are: on 256 bytes, as in every plan.
    const auto* const somewhere = reinterpret_cast<const void*>(uintptr_t{256});
    if (epilogue_ != ConvEpilogue::none) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, somewhere);
    if (has_mask()) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 8 * mask_row_bytes(product.result.rows));
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, somewhere);
    }
    a_ = layout(product.a, type);
    b_ = layout(product.b, type);
    result_ = layout(product.result, type);
  }
  ~Descriptors() {
    for (cublasLtMatrixLayout_t layout : {a_, b_, result_})
      if (layout != nullptr) lt_->api.destroy_layout(layout);
    if (operation_ != nullptr) lt_->api.destroy_desc(operation_);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  // Best first.
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms() const {
    const Preference preference(*lt_);
    std::vector<cublasLtMatmulHeuristicResult_t> found(kMaxCandidates);
    int count = 0;
    const cublasStatus_t status = lt_->api.get_heuristic(lt_->handle, operation_, a_, b_, result_, result_,
                                                         preference.get(), kMaxCandidates, found.data(), &count);
    // Of an epilogue that it does not know with these types it says the one or the other.
    if (status == CUBLAS_STATUS_NOT_SUPPORTED ||
        (epilogue_ != ConvEpilogue::none && status == CUBLAS_STATUS_INVALID_VALUE))
      count = 0;
    else
      lt_->check(status, "asking cuBLASLt for algorithms");
    found.resize(static_cast<size_t>(count));
    return found;
  }

  void run(cudaStream_t stream, const cublasLtMatmulHeuristicResult_t& algorithm, const void* a, const void* b,
           void* result, const void* bias, void* mask, void* workspace) const {
    const float one = 1, zero = 0;
    const std::lock_guard lock(lt_->mutex);
    if (bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    if (has_mask()) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, mask);
    lt_->check(lt_->api.matmul(lt_->handle, operation_, &one, a, a_, b, b_, &zero, result, result_, result, result_,
                               &algorithm.algo, workspace, algorithm.workspaceSize, stream),
               "a cuBLASLt product");
  }
  const Api& api() const { return lt_->api; }

private:
  bool has_mask() const {
    return epilogue_ == ConvEpilogue::bias_relu_mask || epilogue_ == ConvEpilogue::drelu_bias_gradient;
  }
  // Sums are f32 from the first product to the last, in a fixed order: no partial sums in the output's type or place.
  class Preference {
  public:
    explicit Preference(const Lt& lt) : lt_(lt) {
      lt_.check(lt_.api.create_preference(&preference_), "describing a product to cuBLASLt");
      set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMaxWorkspace);
      set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    }
    ~Preference() { lt_.api.destroy_preference(preference_); }
    Preference(const Preference&) = delete;
    Preference& operator=(const Preference&) = delete;
    cublasLtMatmulPreference_t get() const { return preference_; }

  private:
    template <class Value>
    void set(cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
      lt_.check(lt_.api.set_preference(preference_, attribute, &value, sizeof value),
                "describing a product to cuBLASLt");
    }
    const Lt& lt_;
    cublasLtMatmulPreference_t preference_ = nullptr;
  };

  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) const {
    lt_->check(lt_->api.set_desc(operation_, attribute, &value, sizeof value), "describing a product to cuBLASLt");
  }
  cublasLtMatrixLayout_t layout(const Product::Matrix& m, cudaDataType_t type) const {
    cublasLtMatrixLayout_t result = nullptr;
    lt_->check(
        lt_->api.create_layout(&result, type, static_cast<uint64_t>(m.rows), static_cast<uint64_t>(m.columns), m.rows),
        "describing a matrix to cuBLASLt");
    return result;
  }

  std::shared_ptr<Lt> lt_;
  const ConvEpilogue epilogue_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, result_ = nullptr;
};

class LtKernel final : public ConvKernel {
public:
  LtKernel(std::shared_ptr<Descriptors> descriptors, cublasLtMatmulHeuristicResult_t algorithm, ConvPass pass)
      : descriptors_(std::move(descriptors)), algorithm_(algorithm), pass_(pass) {}

  // All that tells one from another: algorithm, tile and stages, then the parts that K is split into and how they are
  // joined, the order of the blocks, the algorithm's own variant, and the shapes of instruction and cluster.
  std::string name() const override {
    std::string text = "cublasLt algorithm " + setting(CUBLASLT_ALGO_CONFIG_ID);
    text += " tile " + setting(CUBLASLT_ALGO_CONFIG_TILE_ID) + " stages " + setting(CUBLASLT_ALGO_CONFIG_STAGES_ID);
    const char* divider = " (";
    for (const auto attribute : {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                 CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION,
                                 CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID}) {
      text += divider + setting(attribute);
      divider = ",";
    }
    return text + ")";
  }
  int64_t workspace_bytes() const override { return static_cast<int64_t>(algorithm_.workspaceSize); }

  void run(Stream s, const ConvArgs& args) const override {
    auto* stream = static_cast<cudaStream_t>(s.handle);
    const void* const bias = args.linear_bias != nullptr ? args.linear_bias : args.bias;  // of a linear layer, or f32
    switch (pass_) {
      case ConvPass::fprop:
        return descriptors_->run(stream, algorithm_, args.w, args.x, args.y, bias, args.mask, args.workspace);
      case ConvPass::dgrad:
        return descriptors_->run(stream, algorithm_, args.w, args.y, args.x, args.bias_gradient, args.mask,
                                 args.workspace);
      case ConvPass::wgrad:
        return descriptors_->run(stream, algorithm_, args.x, args.y, args.w, args.bias_gradient, nullptr,
                                 args.workspace);
    }
  }

private:
  // The library refuses another number of bytes than it stores: four, and of the two shapes two.
  std::string setting(cublasLtMatmulAlgoConfigAttributes_t attribute) const {
    uint16_t two = 0;
    uint32_t four = 0;
    size_t written = 0;
    const auto get = descriptors_->api().get_algorithm;
    if (get(&algorithm_.algo, attribute, &four, sizeof four, &written) == CUBLAS_STATUS_SUCCESS)
      return std::to_string(four);
    get(&algorithm_.algo, attribute, &two, sizeof two, &written);
    return std::to_string(two);
  }

  std::shared_ptr<Descriptors> descriptors_;
  cublasLtMatmulHeuristicResult_t algorithm_;
  ConvPass pass_;
};

class CublasLt final : public MatmulLibrary {
public:
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) override {
    std::vector<std::unique_ptr<ConvKernel>> kernels;
    if (!cublaslt_has(desc)) return kernels;
    const auto descriptors = std::make_shared<Descriptors>(lt_, desc);
    for (const auto& algorithm : descriptors->algorithms()) {
      auto kernel = std::make_unique<LtKernel>(descriptors, algorithm, desc.pass);
      // The library now and then offers one twice.
      if (std::none_of(kernels.begin(), kernels.end(), [&](const auto& k) { return k->name() == kernel->name(); }))
        kernels.push_back(std::move(kernel));
    }
    return kernels;
  }
  std::string version() const override {
    const size_t v = lt_->api.get_version();
    return "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
           std::to_string(v % 100);
  }

private:
  std::shared_ptr<Lt> lt_ = std::make_shared<Lt>();
};

}  // namespace

std::unique_ptr<MatmulLibrary> make_cublaslt() { return std::make_unique<CublasLt>(); }

}  // namespace convolt
