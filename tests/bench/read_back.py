"""What Hugging Face's library makes of a folder that `host train` wrote.

    read_back.py OUTPUT_FOLDER DATA_FOLDER

Prints one JSON line: the names that did not fit, the accuracy over the validation rows, the step of the saved state.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerState


def main():
    """Loads, evaluates, prints."""
    folder, data_folder = sys.argv[1:]
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    state = TrainerState.load_from_json(f"{folder}/trainer_state.json")
    rows = [json.loads(line) for line in pathlib.Path(f"{data_folder}/validation.jsonl").read_text().splitlines()]
    model.eval()
    right = 0
    with torch.no_grad():
        for row in rows:
            logits = model(**tokenizer(row["text"], truncation=True, max_length=64, return_tensors="pt")).logits
            right += model.config.id2label[int(logits.argmax())] == row["label"]
    misfits = [name for names in report.values() for name in names]
    print(json.dumps({"misfits": misfits, "accuracy": right / len(rows), "step": state.global_step}))


if __name__ == "__main__":
    main()
