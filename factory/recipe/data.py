"""The recipe's section [data]: source and format of the text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from factory.recipe.section import Fraction, PositiveInt, Section
from factory.recipe.task import TASK_TRAITS, TaskTraits
from serving.bundle import Task


class DataSettings(Section):
    """Source and format of the text."""

    train: str | None = Field(
        default=None, description="training file: delimited text, JSON Lines or Parquet (gzip, too)"
    )
    dev: str | None = Field(default=None, description="file used for selection and for the gate")
    test: str | None = Field(
        default=None, description="file that is scored, but not used for selection"
    )
    dev_fraction: Fraction | None = Field(
        default=None, description="fraction of train held out as dev if there is no dev file"
    )
    hub: str | None = Field(default=None, description="name of a hub data set, instead of files")
    config: str | None = Field(default=None, description="configuration of the hub data set")
    revision: str | None = Field(default=None, description="revision of the hub data set")
    train_split: str = Field(default="train", description="hub split to train on")
    dev_split: str | None = Field(
        default="validation", description="hub split used for selection and for the gate"
    )
    test_split: str | None = Field(
        default=None, description="hub split that is scored, but not used for selection"
    )
    text: str | Annotated[list[str], Field(min_length=2, max_length=2)] = Field(
        default="text", description="text column, or two columns for sentence pairs"
    )
    label: str = Field(default="label", description="label column")
    labels: Annotated[list[str], Field(min_length=2)] | None = Field(
        default=None,
        description="label names in order; required if the column holds integers",
    )
    task: Task = Field(
        default="classification",
        description="multilabel: a text has any number of labels, including none",
    )
    label_separator: Annotated[str, Field(min_length=1)] = Field(
        default=",",
        description="separator between labels in a delimited cell; multilabel only",
    )
    max_length: Annotated[int, Field(ge=8, le=512)] = Field(
        default=128, description="tokens per input"
    )
    quoting: Literal["standard", "none"] | None = Field(
        default=None,
        description='quotes of delimited text; unset: "none" between tabs, else "standard"',
    )
    allow_duplicates: bool = Field(
        default=False, description="allow texts that occur in two splits; they are counted"
    )
    allow_empty: bool = Field(
        default=False,
        description="allow empty texts, such as one side of a pair; they are counted",
    )
    unlabelled: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="file or files of unlabelled text, also used to train the student: "
        "txt (one text per line), or any other data file with the same text columns",
    )
    unlabelled_split: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="hub splits read without their labels, for the same purpose"
    )
    unlabelled_limit: PositiveInt | None = Field(
        default=None, description="maximum number of unlabelled rows, sampled with seed"
    )
    seed: int = Field(
        default=42, description="for sampling the rows of dev_fraction and unlabelled_limit"
    )

    @property
    def traits(self) -> TaskTraits:
        """The properties of the task."""
        return TASK_TRAITS[self.task]

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The text column, or the two columns of a pair."""
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    @property
    def unlabelled_names(self) -> tuple[str, ...]:
        """The files of unlabelled text as given in the recipe."""
        names = self.unlabelled or ()
        return (names,) if isinstance(names, str) else tuple(names)

    @model_validator(mode="before")
    @classmethod
    def fraction_unsets_dev_split(cls, values: Any) -> Any:
        """Turn the default dev_split off when dev_fraction is set: TOML has no null."""
        if isinstance(values, dict) and values.get("dev_fraction") is not None:
            return {"dev_split": None, **values}
        return values

    @model_validator(mode="after")
    def one_source(self) -> DataSettings:
        """Check that there is exactly one source of training rows and one of dev rows."""
        if (self.train is None) == (self.hub is None):
            raise ValueError("give either train (a file) or hub (a data set name)")
        if self.hub is not None and (self.dev is not None or self.test is not None):
            raise ValueError("dev and test name files; a hub data set has dev_split and test_split")
        if self.hub is None and (self.dev is None) == (self.dev_fraction is None):
            raise ValueError("give either dev (a file) or dev_fraction (a fraction of train)")
        if self.hub is not None and (self.dev_split is None) == (self.dev_fraction is None):
            raise ValueError("give either dev_split or dev_fraction for a hub data set")
        if self.hub is None and (self.config or self.revision or self.test_split):
            raise ValueError("config, revision and test_split belong to a hub data set")
        if self.dev_fraction in (0.0, 1.0):
            raise ValueError("dev_fraction must be between 0 and 1")
        if not self.traits.has_labels and self.labels is not None:
            raise ValueError("labels belong to classification; a regression target is a number")
        if not self.traits.has_label_sets and self.label_separator != ",":
            raise ValueError('label_separator needs task = "multilabel"')
        return self

    @model_validator(mode="after")
    def unlabelled_source(self) -> DataSettings:
        """Check that unlabelled_split and unlabelled_limit fit the sources."""
        if self.unlabelled_split is not None and self.hub is None:
            raise ValueError("unlabelled_split belongs to a hub data set; unlabelled names files")
        read = {self.train_split, self.dev_split, self.test_split} if self.hub else set()
        both = [name for name in self.unlabelled_split or () if name in read]
        if both:
            raise ValueError(f"unlabelled_split {both[0]!r} is already read with its labels")
        unlabelled = self.unlabelled or self.unlabelled_split
        if self.unlabelled_limit is not None and not unlabelled:
            raise ValueError("unlabelled_limit needs unlabelled or unlabelled_split")
        return self
