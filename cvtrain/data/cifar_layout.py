"""How CIFAR-10 and CIFAR-100 were published: the official archives, how batches and labels lie in them, the names.

Does not know how an archive is fetched or read.
"""

from __future__ import annotations

from dataclasses import dataclass

from cvtrain.data.published import Download

_PAGE = "https://www.cs.toronto.edu/~kriz/"
SPLITS = ("train", "test")

# MD5 and file names: https://www.cs.toronto.edu/~kriz/cifar.html. The SHA-256 are not from that page: they are the
# ones that several independent projects pin for the same files.
CIFAR10_ARCHIVES = (
    Download(
        address=_PAGE + "cifar-10-python.tar.gz",
        file_name="cifar-10-python.tar.gz",
        size_bytes=170_498_071,
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        md5="c58f30108f718f92721af3b95e74349a",
    ),
    Download(
        address=_PAGE + "cifar-10-binary.tar.gz",
        file_name="cifar-10-binary.tar.gz",
        size_bytes=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
)
CIFAR100_ARCHIVES = (
    Download(
        address=_PAGE + "cifar-100-python.tar.gz",
        file_name="cifar-100-python.tar.gz",
        size_bytes=169_001_437,
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
    ),
    Download(
        address=_PAGE + "cifar-100-binary.tar.gz",
        file_name="cifar-100-binary.tar.gz",
        size_bytes=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
)

_TEN_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_COARSE_NAMES = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things "
    "large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people "
    "reptiles small_mammals trees vehicles_1 vehicles_2"
)
_FINE_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR10_NAMES = tuple(_TEN_NAMES.split())
CIFAR100_COARSE_NAMES = tuple(_COARSE_NAMES.split())
CIFAR100_FINE_NAMES = tuple(_FINE_NAMES.split())


@dataclass(frozen=True)
class LabelColumn:
    """One column of labels: its key in the pickles, where its class names stand, and the official names."""

    key: str
    names_key: str
    names_file: str
    official: tuple[str, ...]


@dataclass(frozen=True)
class CifarLayout:
    """How one of the data sets lies in its archives; labels in the order of the binary records."""

    title: str
    python_dir: str
    binary_dir: str
    train_batches: tuple[str, ...]
    test_batch: str
    python_names: str
    labels: tuple[LabelColumn, ...]

    @property
    def dirs(self) -> tuple[str, str]:
        """The folders inside the archives, pickled and binary."""
        return self.python_dir, self.binary_dir

    @property
    def batches(self) -> tuple[str, ...]:
        """The batches without suffix, the one to test on last."""
        return *self.train_batches, self.test_batch

    @property
    def files(self) -> frozenset[str]:
        """Every file that is read from either form: batches and class names."""
        binary = (f"{name}.bin" for name in self.batches)
        return frozenset((*self.batches, *binary, self.python_names, *(column.names_file for column in self.labels)))


CIFAR10 = CifarLayout(
    title="CIFAR-10",
    python_dir="cifar-10-batches-py",
    binary_dir="cifar-10-batches-bin",
    train_batches=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_batch="test_batch",
    python_names="batches.meta",
    labels=(LabelColumn("labels", "label_names", "batches.meta.txt", CIFAR10_NAMES),),
)
CIFAR100 = CifarLayout(
    title="CIFAR-100",
    python_dir="cifar-100-python",
    binary_dir="cifar-100-binary",
    train_batches=("train",),
    test_batch="test",
    python_names="meta",
    labels=(
        LabelColumn("coarse_labels", "coarse_label_names", "coarse_label_names.txt", CIFAR100_COARSE_NAMES),
        LabelColumn("fine_labels", "fine_label_names", "fine_label_names.txt", CIFAR100_FINE_NAMES),
    ),
)
