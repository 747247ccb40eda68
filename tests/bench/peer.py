"""The demo in Hugging Face's Trainer: the same data, model and arguments as examples/intents/config.toml.

    peer.py MODEL_FOLDER DATA_FOLDER OUTPUT_FOLDER

Prints one JSON line: accuracy of the best epoch, seconds of `train()`, peak memory in bytes.
"""

import json
import pathlib
import resource
import sys
import time

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def rows(path):
    """The rows of a JSONL file."""
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def main():
    """Trains and prints."""
    model_folder, data_folder, output_folder = sys.argv[1:]
    train, validation = (rows(f"{data_folder}/{split}.jsonl") for split in ("train", "validation"))
    labels = sorted({row["label"] for row in train})
    tokenizer = AutoTokenizer.from_pretrained(model_folder)

    def encoded(split):
        return [
            dict(tokenizer(row["text"], truncation=True, max_length=64), labels=labels.index(row["label"]))
            for row in split
        ]

    set_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=len(labels))
    arguments = TrainingArguments(
        output_folder,
        num_train_epochs=4,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        learning_rate=2e-4,
        warmup_ratio=0.1,
        seed=42,
        logging_steps=20,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        optim="adamw_torch",
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=encoded(train),
        eval_dataset=encoded(validation),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda result: {"accuracy": float((result[0].argmax(1) == result[1]).mean())},
    )
    begin = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"accuracy": trainer.state.best_metric, "seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main()
