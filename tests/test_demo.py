from mgral_service.demo import annotate


def test_the_annotator_answers_what_was_asked_and_no_more() -> None:
    truth = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [5, 6, 7, 8]},
        ],
    }
    asked = {"images": [{"id": 1, "image_id": "img_b", "file_name": "b.jpg"}]}
    answer = annotate(asked, truth)
    assert answer["images"] == asked["images"]
    assert [(one["image_id"], one["bbox"]) for one in answer["annotations"]] == [(1, [5, 6, 7, 8])]
