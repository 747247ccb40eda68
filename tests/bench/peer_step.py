"""A step of MiniLM in a bare PyTorch loop, with 32 rows of 128 tokens.

    peer_step.py MODEL_FOLDER float32|bf16 STEPS

Prints the processor time of a step in seconds, the median of STEPS after two that are not counted.
"""

import contextlib
import statistics
import sys
import time

import torch
from transformers import AutoModelForSequenceClassification


def main():
    """Trains and prints."""
    folder, precision, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=6, attn_implementation="eager")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    seconds = []
    for step in range(steps + 2):
        ids = torch.randint(1000, 30000, (32, 128))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(32) % 6}
        begin = time.process_time()
        autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        with autocast:
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        if step >= 2:
            seconds.append(time.process_time() - begin)
    print(statistics.median(seconds))


if __name__ == "__main__":
    main()
