"""The processor: cores that may be used, vector instructions, clock governor, who else is using it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from client.doctor.finding import Finding, ok, problem, warning

CORES_WANTED = 2
BUSY_SHARE = 0.7
X86 = ("x86_64", "AMD64")
VECTOR_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "bf16": "bf16",
}
SELF_GOVERNED = ("intel_pstate", "amd-pstate", "amd-pstate-epp", "intel_cpufreq")


def check(root: Path = Path("/")) -> list[Finding]:
    """root: where /proc and /sys are, for tests."""
    return [_cores(root), _vectors(root), *_governor(root), *_load()]


def usable_cores(root: Path = Path("/")) -> tuple[float, int]:
    """Cores that this process gets: (what affinity and the cgroup's quota leave, those of affinity)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return (min(float(cores), quota) if quota is not None else float(cores)), cores


def _cgroup_quota(root: Path) -> float | None:
    """CPU cores of the cgroup's limit (v2: cpu.max, v1: cfs quota and period); None without one."""
    group = root / "sys" / "fs" / "cgroup"
    try:
        quota, period = _read(group / "cpu.max").split()
    except ValueError:
        quota, period = (_read(group / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", -1, or no cgroup
    return int(quota) / int(period)


def _cores(root: Path) -> Finding:
    usable, cores = usable_cores(root)
    figures = {"cores": cores, "usable": usable}
    if usable < cores:
        says = f"Of {cores} cores this process may use {usable:g}: its container has a CPU quota."
        if usable < CORES_WANTED:
            return problem(
                "cpu",
                says,
                f"Give the container {CORES_WANTED} CPUs or more (--cpus={CORES_WANTED}).",
                **figures,
            )
        return ok("cpu", says, **figures)
    if cores < CORES_WANTED:
        return warning(
            "cpu",
            "Only one core is usable; model and media get into each other's way.",
            f"Use {CORES_WANTED} cores or more, or a GPU.",
            **figures,
        )
    return ok("cpu", f"{cores} cores are usable, without a quota.", **figures)


def _vectors(root: Path) -> Finding:
    flags = set()
    for line in _read(root / "proc" / "cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            break
    found = list(dict.fromkeys(name for flag, name in VECTOR_FLAGS.items() if flag in flags))
    figures = {"vector_instructions": found, "architecture": platform.machine()}
    listed = ", ".join(found)
    if not flags:
        return warning(
            "vectors", "This system does not say which vector instructions its processor has.",
            "Go by the model's speed below.", **figures,
        )  # fmt: skip
    if platform.machine() in X86 and "AVX2" not in found:
        return problem(
            "vectors", "The processor, or the virtual machine, has no AVX2; the model runs many times slower.",
            "Choose a machine type with AVX2 (every server processor since 2015), or pass it through to the guest.",
            **figures,
        )  # fmt: skip
    if platform.machine() in X86 and "AVX-512" not in found:
        return ok(
            "vectors", f"Vector instructions: {listed}. The model would be faster with AVX-512.", **figures
        )
    return ok("vectors", f"Vector instructions: {listed}.", **figures)


def _governor(root: Path) -> list[Finding]:
    """Nothing where the system does not tell (virtual machines)."""
    folder = root / "sys" / "devices" / "system" / "cpu" / "cpu0" / "cpufreq"
    governor, driver = _read(folder / "scaling_governor"), _read(folder / "scaling_driver")
    if not governor:
        return []
    if governor == "powersave" and driver not in SELF_GOVERNED:
        return [
            warning(
                "governor", "The clock governor is powersave: the processor stays at its lowest clock.",
                "`cpupower frequency-set -g performance` (or schedutil).", governor=governor, driver=driver,
            )
        ]  # fmt: skip
    return [ok("governor", f"The clock governor is {governor} ({driver}).", governor=governor, driver=driver)]


def busy() -> float | None:
    """The load of the last minute, where other programs take much of the processor."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
    return load if load > BUSY_SHARE * usable_cores()[0] else None


def _load() -> list[Finding]:
    load = busy()
    if load is None:
        return [ok("load", "No other program keeps this machine busy.")]
    return [
        warning(
            "load", f"Other programs keep this machine busy (load {load:.1f} on {usable_cores()[0]:g} cores).",
            "Figures below are worse than on a quiet machine; stop the others and run this again.", load_1min=load,
        )
    ]  # fmt: skip


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
