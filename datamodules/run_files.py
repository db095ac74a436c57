"""The files of a checkpoint's run, found again in folders that may have changed since."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checkpointing.split import Split
from datamodules.decode import SUFFIXES
from datamodules.image_files import ImageFiles
from datamodules.trained_on import as_mask, leave_out_sample, of_same_size
from errors import UserError, pluralize

CONVERTED = "no image has the content that the run knows: a converted or resized copy, found by its paths"
COPY_SHARE = 0.9  # of the run's paths: a converted or resized copy may lack files that could not be read


@dataclass(frozen=True)
class FoundFiles:
    """What became of a run's files in the folder of its training images.

    Args:
        held_back: [N] bool: whether the run has held an image back, also under another name or in another class.
        new: [N] bool: whether an image is in neither list of the run.
        renamed: the path in the run's list of each file that was held back, by the other path that it has now.
        missing: how many of the images that the run held back are gone.
        unchanged: whether an image is known by its content, and not by its name alone.
        other_folder: whether none of the run's images is there.
    """

    held_back: np.ndarray
    new: np.ndarray
    renamed: dict[str, str]
    missing: int
    unchanged: bool
    other_folder: bool


def find_run_files(images: ImageFiles, split: Split) -> FoundFiles:
    """Find a run's files in the folder of its training images, from which it has held some back.

    A file that was held back is found by its content under any path, or else by its path, where it was edited in
    place, converted or resized, but not where a training image was copied there. Where files have got the paths of
    others, paths say nothing.
    """
    paths = images.portable_paths()
    index_of = {path: index for index, path in enumerate(paths)}
    trained_on = set(split.trained_on)
    found = {
        index_of[path]: path
        for path, content in split.held_back.items()
        if path in index_of and images.content(index_of[path]) == content
    }
    others = [index for index in range(len(paths)) if index not in found]
    others.sort(key=lambda index: paths[index] in trained_on)  # of files of one content, a new one is preferred
    found |= search_contents(images, others, without(split.held_back, found.values()))
    unchanged = bool(found) or holds_sample(images, split)
    other_folder = not unchanged and not is_copy(paths, [*split.trained_on, *split.held_back])
    paths_were_reused = any(
        paths[index] != path and (paths[index] in trained_on or paths[index] in split.held_back)
        for index, path in found.items()
    )
    if not other_folder and not paths_were_reused:
        in_place = {index_of[path]: path for path in without(split.held_back, found.values()) if path in index_of}
        copies = {index for index in in_place if images.content(index) in split.sample.values()}
        found |= {index: path for index, path in in_place.items() if index not in copies}
        settled = found.keys() | copies
        new = [index for index in others if index not in settled and paths[index] not in trained_on]
        found |= match_stems(paths, new, without(split.held_back, found.values()))
    held_back = as_mask(found, len(paths))
    known = np.array([path in trained_on and not other_folder for path in paths], dtype=bool)
    renamed = {paths[index]: path for index, path in found.items() if paths[index] != path}
    missing = len(split.held_back) - len(found)
    return FoundFiles(held_back, ~held_back & ~known, renamed, missing, unchanged, other_folder)


def without(contents: Mapping[str, str], paths: Collection[str]) -> dict[str, str]:
    """Files and their contents, but for those with some paths."""
    known = set(paths)
    return {path: content for path, content in contents.items() if path not in known}


def search_contents(images: ImageFiles, candidates: Iterable[int], contents: Mapping[str, str]) -> dict[int, str]:
    """Search images for the contents of files, each of which is found once.

    Args:
        images: to search in.
        candidates: indices of those that may be the files; only those with the size of one of them are read.
        contents: the `content_id` of each file by its path.

    Returns:
        The path of the file that an image has the content of, by the index of the image.
    """
    paths_of = defaultdict(list)
    for path, content in contents.items():
        paths_of[content].append(path)
    found = {}
    for index in of_same_size(images, candidates, paths_of) if contents else ():
        if left := paths_of.get(images.content(index)):
            found[index] = left.pop(0)
    return found


def match_stems(paths: Sequence[str], candidates: Iterable[int], gone: Iterable[str]) -> dict[int, str]:
    """Match images with files that are gone and had the same path up to the suffixes, each of them once.

    A resized copy of a.png is a.png.jpg, and a converted one a.jpg. Arguments and result as of `search_contents`.
    """
    exact = set(gone)
    found = {index: path for index in candidates if (path := os.path.splitext(paths[index])[0]) in exact}
    stems = {without_suffix(path): path for path in exact - set(found.values())}
    for index in candidates if stems else ():
        if index not in found and (path := stems.pop(without_suffix(paths[index]), "")):
            found[index] = path
    return found


def without_suffix(path: str) -> str:
    """A path without the suffixes of image formats: a resized copy of a.png is a.png.jpg."""
    stem, suffix = os.path.splitext(path)
    return without_suffix(stem) if suffix.lower() in SUFFIXES else path


def holds_sample(images: ImageFiles, split: Split) -> bool:
    """Whether one of the files that the run has trained on, of a sample, is there with its content."""
    names = enumerate(images.portable_paths())
    return any(path in split.sample and images.content(k) == split.sample[path] for k, path in names)


def is_copy(paths: Iterable[str], of_run: Sequence[str]) -> bool:
    """Whether images have the paths of a run's, up to the suffixes, as in a converted or resized copy of its folder."""
    stems = {without_suffix(path) for path in paths}
    return bool(of_run) and sum(without_suffix(path) in stems for path in of_run) >= COPY_SHARE * len(of_run)


def is_run_folder(images: ImageFiles, split: Split) -> bool:
    """Whether images are those that the run has trained on, or a copy of them, as far as a sample and paths tell."""
    return holds_sample(images, split) or is_copy(images.portable_paths(), split.trained_on)


def find_validated(images: ImageFiles, split: Split, val_images: ImageFiles) -> np.ndarray:
    """[N] bool: whether a training image was moved there from val/, judged by its content, or by its path if it is new.

    Args:
        images: of the training folder.
        split: of the run, which validates on the images of val/.
        val_images: of val/; those that are still there have not been moved.
    """
    val_paths = val_images.portable_paths()
    index_of = {path: index for index, path in enumerate(val_paths)}
    lost = {
        path: content
        for path, content in split.held_back.items()
        if path not in index_of or val_images.content(index_of[path]) != content
    }
    moved = search_contents(images, range(len(images)), lost)
    paths, trained_on = images.portable_paths(), set(split.trained_on)
    gone = without(lost, moved.values()).keys() - index_of.keys()
    gone -= set(match_stems(val_paths, range(len(val_paths)), gone).values())  # converted or resized
    new = [index for index, path in enumerate(paths) if index not in moved and path not in trained_on]
    in_place = {index: paths[index] for index in new if paths[index] in gone}
    moved |= in_place | match_stems(paths, new, gone - set(in_place.values()))
    return as_mask(moved, len(images))


@dataclass(frozen=True)
class Division:
    """The images of a run's training folder, divided as the run did.

    Args:
        train: to train on.
        held_back: to validate on; None if the run has held none of them back.
        notes: sentences on what is different.
        renamed: see `FoundFiles`.
        other_folder: whether none of the run's images is there, and all are tested.
    """

    train: ImageFiles
    held_back: ImageFiles | None
    notes: list[str]
    renamed: dict[str, str]
    other_folder: bool = False


def divide_as_run(images: ImageFiles, split: Split, val_images: ImageFiles | None, verb: str) -> Division:
    """Divide the training folder of a run as the run did; `val_images` are those of val/.

    What the run held back stays held back. New images are trained on by `fit`, and left out by `test` and `validate`.
    A folder in which none of the run's images is there is another one: all of it is tested.

    Raises:
        UserError: if none of the images that the run has held back is there.
    """
    if split.own_folder:
        assert val_images is not None
        moved = find_validated(images, split, val_images)
        notes = [] if holds_sample(images, split) else [describe_other_contents(images, split)]
        if moved.any():
            count, folder = pluralize(int(moved.sum()), "image"), os.fsdecode(val_images.folder)
            notes.append(f"{count} not trained on: the run validated on them, in {folder}")
        return Division(images.subset(np.flatnonzero(~moved)), None, notes, {})
    found = find_run_files(images, split)
    if found.other_folder and verb == "test":
        others = leave_out_sample(images, split)
        return Division(others, others, [describe_other_folder(others, split)], {}, True)
    if split.held_back and not found.held_back.any():
        raise UserError(
            f"None of the {pluralize(len(split.held_back), 'image')} that this run held back is in "
            f"{os.fsdecode(images.folder)}: name the run's folder with --data.root, put images that are to be tested "
            "into a folder test/ in it, or start a new run from the weights with --model.weights."
        )
    held_back = images.subset(np.flatnonzero(found.held_back)) if found.held_back.any() else None
    notes = describe_changes(found, len(split.held_back), verb)
    return Division(images.subset(np.flatnonzero(~found.held_back)), held_back, notes, found.renamed)


def describe_other_folder(images: ImageFiles, split: Split) -> str:
    """A sentence on a folder that is tested whole."""
    known = {*split.trained_on, *split.held_back}
    count = sum(path in known for path in images.portable_paths())
    names = f", though {count:,} {'has' if count == 1 else 'have'} the path of one" if count else ""
    return f"no image has a content that is known of the run's{names}, so all of them are tested"


def describe_other_contents(images: ImageFiles, split: Split) -> str:
    """A sentence on training images none of which has the content of one of the run's."""
    copied = is_copy(images.portable_paths(), split.trained_on)
    return CONVERTED if copied else "no image has the path and the content of one that the run has trained on"


def describe_changes(found: FoundFiles, held_back: int, verb: str) -> list[str]:
    """Sentences on a run's folder that has changed; `held_back` is the number of images that the run held back."""
    notes = []
    if not found.unchanged:
        notes.append(CONVERTED)
    if found.missing:
        total = pluralize(held_back, "image")
        notes.append(f"of the {total} that the run held back, {found.missing:,} cannot be found")
    if found.new.any():
        fate = "trained on from now on" if verb == "fit" else "left out"
        notes.append(f"{pluralize(int(found.new.sum()), 'new image')}, in neither list of the run: {fate}")
    return notes
