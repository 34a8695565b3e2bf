"""From a folder of pictures to projected images and metrics, without a command line.

python examples/from_python.py PICTURES OUT

In a notebook, the results show themselves: grids as pictures, metrics as tables, progress as bars.
"""

import sys
from pathlib import Path

import stylegan


def main(pictures: Path, out: Path, *, resolution: int = 64, kimg: float = 0.2) -> None:
    """Prepare, train, load, generate, project, evaluate and report.

    Args:
        pictures: a folder of images, of any size.
        out: the folder for all results.
        resolution: side of the training images, in pixels.
        kimg: length of the training, in thousands of images. 0.2 only shows that it works; small
            sets need hundreds.
    """
    with stylegan.ProgressBar() as progress:
        prepared = stylegan.prepare(
            pictures, out / "data.zip", resolution=resolution, progress=progress
        )
        print(prepared)

        run = stylegan.train(
            prepared.path, out / "run", preset="stylegan2-small", kimg=kimg, metrics="none"
        )
        print(run)

        G = stylegan.load(run.snapshot)
        samples = stylegan.generate.images(G, range(16), psi=0.7, progress=progress)
        samples.picture().write(out / "samples.png")
        stylegan.generate.video(G, seeds=range(3), seconds=1, fps=8, out=out / "walk.gif")

        projections = stylegan.project(
            next(iter(sorted(pictures.iterdir()))),
            run.snapshot,
            out=out / "projections",
            perceptual="efficientnet",
            steps=20,
            progress=progress,
        )
        print(projections[0])

        metrics = stylegan.evaluate(
            G,
            prepared.path,
            metrics=["swd64", "kid64:efficientnet-lite0"],
            mirror="no",
            out=out / "metrics.jsonl",
            progress=progress,
        )
        print(metrics)

        page = stylegan.report(
            run.snapshot, prepared.path, out=out / "report.html", num=8, steps=5, progress=progress
        )
        print(page)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
