"""The exam of DatasetStore."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import AlreadyExists, NotFound
from mgral_service.domain.ports import Stores
from tests.fakes import boxes_in, dataset_images, dataset_record


def test_a_dataset_comes_back_as_it_went_in(stores: Stores) -> None:
    assert stores.datasets.add(dataset_record(), dataset_images()) == dataset_record()
    assert stores.datasets.get("digits") == dataset_record()
    assert stores.datasets.images("digits") == dataset_images()


def test_the_same_spec_again_gives_the_first(stores: Stores) -> None:
    stores.datasets.add(dataset_record(), dataset_images())
    later = replace(dataset_record(), created=2.0)
    assert stores.datasets.add(later, replace(dataset_images(), images=())).created == 1000.0
    assert stores.datasets.images("digits") == dataset_images()


def test_a_name_has_one_spec(stores: Stores) -> None:
    stores.datasets.add(dataset_record(), dataset_images())
    with pytest.raises(AlreadyExists):
        stores.datasets.add(dataset_record(root="/other"), dataset_images())


def test_unknown_datasets_are_not_found(stores: Stores) -> None:
    for call in (
        lambda: stores.datasets.get("no"),
        lambda: stores.datasets.images("no"),
        lambda: stores.datasets.labels("no"),
        lambda: stores.datasets.add_labels("no", "cyc_1", boxes_in("img_0")),
    ):
        with pytest.raises(NotFound):
            call()


def test_pages_go_by_name(stores: Stores) -> None:
    for name in ("b", "a", "c-1", "c.0"):
        stores.datasets.add(dataset_record(name), dataset_images())
    assert [record.spec.name for record in stores.datasets.page(None, 2)] == ["a", "b"]
    assert [record.spec.name for record in stores.datasets.page("b", 5)] == ["c-1", "c.0"]


def test_labels_keep_the_order_of_cycles_and_the_last_answer(stores: Stores) -> None:
    stores.datasets.add(dataset_record(), dataset_images())
    assert stores.datasets.labels("digits") == ()
    stores.datasets.add_labels("digits", "cyc_2", boxes_in("img_0", "img_1"))
    stores.datasets.add_labels("digits", "cyc_1", Annotations.empty(["img_2"]))
    stores.datasets.add_labels("digits", "cyc_2", boxes_in("img_1"))
    (first, last), (second, empty) = stores.datasets.labels("digits")
    assert (first, second) == ("cyc_2", "cyc_1")
    assert (last.ids, empty.ids) == (("img_1",), ("img_2",))
    assert empty.boxes.shape == (0, 4)
    want = boxes_in("img_1")
    for name in ("image", "boxes", "labels", "ignore"):
        got = getattr(last, name)
        np.testing.assert_array_equal(got, getattr(want, name))
        assert got.dtype == getattr(want, name).dtype


def test_an_image_that_cycles_labelled_counts_once(stores: Stores) -> None:
    stores.datasets.add(dataset_record(), dataset_images())
    assert stores.datasets.labelled_since("digits") == 0
    stores.datasets.add_labels("digits", "cyc_1", boxes_in("img_0", "img_1"))
    stores.datasets.add_labels("digits", "cyc_1", boxes_in("img_0", "img_1"))
    stores.datasets.add_labels("digits", "cyc_2", Annotations.empty(["img_1", "img_é"]))
    assert stores.datasets.labelled_since("digits") == 3
    stores.datasets.add_labels("digits", "cyc_1", boxes_in("img_1"))
    assert stores.datasets.labelled_since("digits") == 2
    stores.datasets.add_labels("digits", "cyc_2", boxes_in())
    assert stores.datasets.labelled_since("digits") == 1
