"""What the seed tool's configuration knows and this project does not: refused by name, with what there is instead."""

from __future__ import annotations

# Keys -> what to do instead. A name stands for the key wherever it is written.
KEYS = {
    "debug": "there is no debug output; runs write pictures, metrics.jsonl, TensorBoard and report.html by themselves",
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
    "source": "there are no losses of several outputs; the network has one",
    "max_iterations": "there is no Hessian optimizer",
    "max_func_eval": "there is no Hessian optimizer",
    "absolute_tolerance": "there is no Hessian optimizer",
    "relative_tolerance": "there is no Hessian optimizer",
}

# (key, lower-case value) -> what it is. The schema's own message lists the values that there are.
VALUES = {
    **{(f"data.{key}", name): "a data loader" for key in ("type", "input_type", "target_type")
       for name in ("numpy", "hdf5", "mnist", "pde")},
    ("optimizer.type", "hessian"): "an optimizer",
    **{("loss.function", name): "a loss" for name in (
        "lovasz", "wasserstein", "yolov3", "burgers_pde", "poisson2d_pde", "poisson3d_pde")},
}  # fmt: skip
