"""Dependencies and extras of clip_jax; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# The lower bounds are the versions that the tests run with. jax, flax and orbax change their interfaces between minor
# releases, so these three have an upper bound too.
CORE = [
    "jax>=0.10.2,<0.11",
    "flax>=0.12.8,<0.13",
    "numpy>=2.0",
    "einops>=0.8",
    "jaxtyping>=0.3.4",
    "pillow>=11",
    "safetensors>=0.6",
    "tokenizers>=0.22,<0.24",
    "huggingface_hub>=1.31,<3",
    "sentencepiece>=0.2",
    "ftfy>=6.3,<7",
    "regex>=2024.11.6",
    "tqdm>=4.67",
    "orbax-checkpoint>=0.12.8,<0.13",
    "etils[epath]>=1.12",
    "fsspec>=2025.3",
    "packaging>=24",
]
TENSORFLOW = [
    "tensorflow-cpu>=2.20,<2.22; platform_system == 'Linux' and platform_machine == 'x86_64'",
    "tensorflow>=2.20,<2.22; platform_system != 'Linux' or platform_machine != 'x86_64'",
]
STEP = ["optax>=0.2.8,<0.3", "ml-collections>=1.1", "matplotlib>=3.10"]
TRAIN = [
    *TENSORFLOW,
    *STEP,
    "tensorboardX>=2.6.2",
    "tensorflow-datasets>=4.9.10",
    "array_record>=0.8.6; platform_system == 'Linux'",
]
TPU = [*STEP, "jax[tpu]>=0.10.2,<0.11; platform_system == 'Linux'"]  # brings libtpu, whose compiler needs no TPU
TORCH = ["torch==2.13.0", "transformers>=5.20,<6", "open_clip_torch==3.3.0"]  # the references that tests compare with
PARQUET = ["pyarrow>=21"]
TEST = [
    *TRAIN,
    *TORCH,
    *TPU,
    *PARQUET,
    "webdataset>=0.2.86",
    "pytest>=9",
    "pytest-xdist>=3.8",
    "beartype>=0.22",
    "scikit-learn>=1.7",
    "nbclient>=0.11",
    "nbformat>=5.11",
    "ipykernel>=7.4",
    "clip-benchmark>=1.6.2",
    "ruff==0.17.5",
    "pyright==1.1.414",
    "pre-commit>=4",
]

setup(
    name="clip_jax",
    version="0.1.0",
    description="CLIP in JAX/Flax: sharded training on TPU pods, PyTorch weight conversion, zero-shot evaluation",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["clip_jax", "clip_jax.*"]),
    package_data={"clip_jax": ["assets/**", "py.typed"]},
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "test": TEST,
        "torch": TORCH,
        "tpu": TPU,
        "parquet": PARQUET,
        "gcs": ["gcsfs>=2025.3"],
        "wandb": ["wandb>=0.20"],
        "cuda": ["jax[cuda13]>=0.10.2,<0.11"],
    },
    entry_points={"console_scripts": ["clip-jax = clip_jax.cli.main:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
