"""Where the programs are, which card it is, and what they need around them."""
import os
import shutil
import subprocess
import sys
import tarfile

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PEERS = os.path.join(ROOT, "benchmarks", "peers")
PROGRAMS = {"test_kernels": "tests", "test_conv": "tests", "test_graph": "tests", "test_gpu": "tests/cuda", "convolt": "."}


class Missing(Exception):
    """What lacks, and the exit code that says so."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def said_by(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def unpacked_bundle():
    """The folder of a bundle of tools/gpu_bundle.sh: this one, or build/gpu/bundle.tar.xz unpacked; None when there is none."""
    if os.path.exists(os.path.join(ROOT, "bin", "convolt")):
        return ROOT
    archive, folder = os.path.join(ROOT, "build", "gpu", "bundle.tar.xz"), os.path.join(ROOT, "build", "gpu", "unpacked")
    if not os.path.exists(archive):
        return None
    stamp, now = os.path.join(folder, "unpacked_from"), str(os.stat(archive).st_mtime_ns)
    if not os.path.exists(stamp) or open(stamp).read() != now:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        with tarfile.open(archive) as tar:
            tar.extractall(folder)
        with open(stamp, "w") as file:
            file.write(now)
    return folder


def programs_of(dry):
    """(program -> path, folder of a bundle or None). CONVOLT_GPU_BUILD names another build folder."""
    build = os.environ.get("CONVOLT_GPU_BUILD")
    bundle = None if dry or build else unpacked_bundle()
    if bundle:
        return {name: os.path.join(bundle, "bin", name) for name in PROGRAMS}, bundle
    build = build or os.path.join(ROOT, "build", "cpu" if dry else "cuda")
    paths = {name: os.path.join(build, place, name) for name, place in PROGRAMS.items()}
    if not os.path.exists(paths["convolt"]):
        raise Missing(2, f"no program is in {build}: " + ("run tools/build.sh first" if dry else
                         "run tools/gpu_bundle.sh first, on a machine with the CUDA toolkit"))
    return paths, None


def commit_of(bundle):
    """Of what was built. A changed tree has no name that a later run could trust."""
    if bundle and os.path.exists(os.path.join(bundle, "commit")):
        with open(os.path.join(bundle, "commit")) as file:
            return file.read().strip()
    commit = said_by("git", "rev-parse", "--short", "HEAD")
    changed = said_by("git", "status", "--porcelain", "--untracked-files=no")
    return commit + ("-changed" if changed else "") if commit else "unknown"


def gpu_name():
    lines = said_by("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    if not lines or not shutil.which("nvidia-smi"):
        raise Missing(4, "no NVIDIA GPU was found (nvidia-smi shows none); CONVOLT_GPU_CHECK_DEVICE=cpu proves the stages on the CPU")
    return lines[0]


def nvidia_packages():
    """Folders of libraries that are Python packages: cuDNN and cuBLAS may be."""
    code = "import nvidia, os; print(':'.join(os.path.join(r, d, 'lib') for r in nvidia.__path__ for d in sorted(os.listdir(r))))"
    return said_by(sys.executable, "-c", code)


def environment_of(bundle, dry):
    """What Convolt's programs get; PyTorch must not get the bundle's libraries."""
    found = {"OMP_WAIT_POLICY": "passive"}
    packages = os.environ.get("CONVOLT_CUDA_LIBRARIES") or ("" if dry else nvidia_packages())
    if packages:
        found["CONVOLT_CUDA_LIBRARIES"] = packages
    if bundle:
        folders = [os.path.join(bundle, "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        found["LD_LIBRARY_PATH"] = ":".join(f for f in folders if f)
    return found


def machine():
    """What the results were taken on."""
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total,clocks_throttle_reasons.active"
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {"smi": said_by("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"), "smi_fields": fields, "cpu": cpu,
            "cores": os.cpu_count(), "kernel": os.uname().release}
