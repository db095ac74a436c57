"""The square images that a net can take."""

from dataclasses import dataclass

from errors import UserError

MAX_SIZE = 1 << 16  # pixels per side: no limit


@dataclass(frozen=True)
class InputSize:
    """Limits of a net's input, in pixels per side.

    Args:
        model: name of the model, for the sentence.
        smallest: in evaluation and, unless `training` says otherwise, in training.
        training: the smallest and the largest in training, where auxiliary heads fix them; None for `smallest` or more.
        small_form: the flag of the family's form for small images, if it has one, for the sentence.
    """

    model: str
    smallest: int
    training: tuple[int, int] | None = None
    small_form: str = ""

    def check(self, size: int, training: bool) -> None:
        """Raise UserError for images with a side that the net cannot take.

        Args:
            size: pixels per side.
            training: whether the images are trained on.
        """
        least, most = (self.smallest, MAX_SIZE) if not training or self.training is None else self.training
        if least <= size <= most:
            return
        allowed = f"at least {least}" if most == MAX_SIZE else f"between {least} and {most}"
        remedies = ["smaller images" if size > most else "larger images"]
        if size < least and self.small_form:
            remedies.append(f"the net's form for small ones ({self.small_form})")
        if training and size >= self.smallest:
            remedies.append("no auxiliary heads (--model.aux_weight 0)")
        raise UserError(
            f"{self.model} cannot take images of {size} px in {'training' if training else 'evaluation'}: they must "
            f"have {allowed} px a side. Take {' or '.join(remedies)}."
        )
