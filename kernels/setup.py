"""Compile the C code. OpenMP's functions are not linked: they are those that torch has loaded."""

from setuptools import Extension, setup

FLAGS = (
    *("-std=gnu11", "-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math"),
)

setup(
    ext_modules=[
        Extension(
            "hftool_kernels._kernels",
            ["hftool_kernels/kernels.c"],
            extra_compile_args=[*FLAGS],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
