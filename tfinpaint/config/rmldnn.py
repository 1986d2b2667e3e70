"""What the seed tool's configuration knows and this project does not: refused by name, with what there is instead."""

from __future__ import annotations

# Keys -> what to do instead. A name stands for the key wherever it is written.
KEYS = {
    "debug": "there is no debug output (`false` is accepted); runs write pictures, metrics.jsonl, TensorBoard and "
    "report.html by themselves",
    "debug_interval": "there is no debug output; `figures_interval` sets the epochs between pictures",
    "hdf5_outfile": "there are no slicers; data.test_output_path writes an HDF5 file of the predictions",
    "slicers": "there are no slicers of numpy arrays; data is image folders",
    "bc_frequency": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "bc_type": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "boundary_factor": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "diffusion_coeff": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "domain_size": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "num_examples": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "num_test_examples": "there are no PDE solvers; the tasks are inpainting, image to image, and classification",
    "max_iterations": "there is no Hessian optimizer",
    "max_func_eval": "there is no Hessian optimizer",
    "absolute_tolerance": "there is no Hessian optimizer",
    "relative_tolerance": "there is no Hessian optimizer",
}

_LOADERS = {
    "numpy": "arrays are not read, folders of images are",
    "hdf5": "arrays are not read, folders of images are",
    "mnist": "its binary files are not read; unpack them into folders of images, one for each digit",
    "pde": "there are no PDE solvers",
}
_LOSSES = {
    "lovasz": "write Jaccard, which it approximates",
    "wasserstein": "there are no GANs but loss.adversarial",
    "yolov3": "there is no object detection",
    **dict.fromkeys(("burgers_pde", "poisson2d_pde", "poisson3d_pde"), "there are no PDE solvers"),
}

# (key, lower-case value) -> what it is, and why it is not here. The schema's own message lists what there is.
VALUES = {
    **{(f"data.{key}", name): f"a data loader of the seed tool that is not supported: {why}"
       for key in ("type", "input_type", "target_type") for name, why in _LOADERS.items()},
    **{("loss.function", name): f"a loss of the seed tool that is not supported: {why}"
       for name, why in _LOSSES.items()},
    ("optimizer.type", "hessian"): "an optimizer of the seed tool that is not supported: it needs second derivatives",
}  # fmt: skip
