"""Keys and values of rmldnn that this project does not support: they are refused by name, with the alternative."""

from __future__ import annotations

_NO_PDE = "there are no PDE solvers; the tasks are inpainting, image to image, and classification"
_NO_HESSIAN = "there is no Hessian optimizer"

# Key, at any place -> the alternative.
KEYS = {
    "debug": "there is no debug output (`false` is accepted); runs write pictures, metrics.jsonl, TensorBoard and "
    "report.html without it",
    "debug_interval": "there is no debug output; `figures_interval` sets the epochs between pictures",
    "hdf5_outfile": "there are no slicers; data.test_output_path writes an HDF5 file of the predictions",
    "slicers": "there are no slicers of numpy arrays; data are image folders",
    **dict.fromkeys(("bc_frequency", "bc_type", "boundary_factor", "diffusion_coeff", "domain_size"), _NO_PDE),
    **dict.fromkeys(("num_examples", "num_test_examples"), _NO_PDE),
    **dict.fromkeys(("max_iterations", "max_func_eval", "absolute_tolerance", "relative_tolerance"), _NO_HESSIAN),
}

_LOADERS = {
    "numpy": "arrays are not read, only folders of images",
    "hdf5": "arrays are not read, only folders of images",
    "mnist": "its binary files are not read; unpack them into folders of images, one for each digit",
    "pde": "there are no PDE solvers",
}
_LOSSES = {
    "lovasz": "use Jaccard, which it approximates",
    "wasserstein": "there are no GANs except loss.adversarial",
    "yolov3": "there is no object detection",
    **dict.fromkeys(("burgers_pde", "poisson2d_pde", "poisson3d_pde"), "there are no PDE solvers"),
}

# (key, value in lower case) -> what it is, and why it is not supported. The schema's message lists what is.
VALUES = {
    **{(f"data.{key}", name): f"a data loader of rmldnn that is not supported: {why}"
       for key in ("type", "input_type", "target_type") for name, why in _LOADERS.items()},
    **{("loss.function", name): f"a loss of rmldnn that is not supported: {why}" for name, why in _LOSSES.items()},
    ("optimizer.type", "hessian"): "an optimizer of rmldnn that is not supported: it needs second derivatives",
}  # fmt: skip
