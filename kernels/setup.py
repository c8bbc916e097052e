"""Compile the C code. OpenMP's functions are not linked: they are those that torch has loaded."""

from setuptools import Extension, setup

FLAGS = (
    *("-std=gnu11", "-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math"),
)

INSTRUCTIONS = {
    "avx512": "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c",
    "avx2": "-mavx2 -mfma -mf16c",
}

setup(
    ext_modules=[
        Extension(
            f"hftool_kernels._{name}",
            ["hftool_kernels/kernels.c"],
            extra_compile_args=[*FLAGS, *instructions.split()],
            py_limited_api=True,
        )
        for name, instructions in INSTRUCTIONS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
