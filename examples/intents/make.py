#!/usr/bin/env python3
"""Writes train.jsonl and validation.jsonl: what people say to a bank's assistant about paying each other.

Eight intents that share one vocabulary and differ in who pays whom, in what has already happened, and in a "not". The two
splits share no template: the validation templates say the same things in other words, and a third of their people and
reasons do not occur in training. Python's standard library only; the output is the same on every machine.

    python3 examples/intents/make.py

The sentences are the project's own work, free for any use (CC0 1.0).
"""

import json
import pathlib
import random
import re

SEED = 20
ROWS_PER_PATTERN = {"train": 9, "validation": 3}

# {p} a person, {n} somebody known by name only, {a} an amount, {r} a reason; [x|y] one of the two. A row's template is
# what is left when such a choice has been made.
PATTERNS = {
    "send_money": {
        "train": [
            "[Send|Wire|Transfer|Move] {a} to {p}.",
            "I [want|need|would like] to [pay|send|wire] {p} {a} {r}.",
            "I owe {p} {a}, please [settle|pay] it.",
            "{p} lent me {a} and I [want|would like] to [give it back|repay it|return it].",
            "[Transfer|Move|Wire] {a} from my [account|balance] to {p} {r}.",
            "Could you [move|send|get] {a} [over to|across to] {p}?",
            "{p} asked me for {a}, [go ahead and pay|please pay it|so pay them].",
            "It is my turn to pay, so {p} [should get|gets] {a} from me.",
            "[Give|Hand|Send] {p} the {a} that I [promised|owe them] {r}.",
            "Can I [send|wire|pay|give] {p} {a} today?",
            "{p} [paid|covered] {a} for me, so let me [return it|pay them back|reimburse them].",
            "[Make|Set up|Schedule] a payment of {a} to {p} {r}.",
            "I still have not [paid|repaid] {p} the {a}, do it now.",
            "My [share|part] {r} is {a}, it goes to {p}.",
            "{p} [wants|is waiting for|expects] {a} from me, send it.",
            "I [would like|want] {p} to [have|receive|get] {a} by tonight.",
            "I am in debt to {p}, [pay|send|transfer] them {a} {r}.",
            "{p} [billed|charged] me {a} {r}, [pay|settle|send] it.",
            "It is time that I [paid|repaid] {p} the {a} {r}.",
        ],
        "validation": [
            "{p} picked up the bill of {a} {r}, reimburse them for me.",
            "Please wire {a} out of my balance and into the account of {p}.",
            "I borrowed {a} off {p} and it is time for me to repay.",
            "Let us square up with {p}, I am {a} in their debt.",
            "It would be good to pay back {p} the {a} {r}.",
            "{p} is expecting my {a}, get it over to them.",
            "Please hand over {a} to {p} {r}.",
            "{p} sent me a bill of {a} {r} and I am ready to pay.",
            "I would like to chip in {a} {r}, give it to {p}.",
        ],
    },
    "request_money": {
        "train": [
            "Ask {p} [for|to send me|to pay me|to transfer] {a}.",
            "I [want|need|would like] {p} to [pay|send|wire] me {a} {r}.",
            "{p} owes me {a}, please [collect it|get it back|ask for it].",
            "I lent {p} {a} and [want|would like] [it back|them to repay it|it returned].",
            "[Send|Write] a request for {a} to {p} {r}.",
            "Could you [get|collect|request] {a} from {p}?",
            "I [paid|covered] {a} for {p}, so let them [return it|pay me back|reimburse me].",
            "It is the turn of {p} to pay, so I [should get|get] {a} from them.",
            "[Tell|Remind] {p} to [give|hand|send] me the {a} they [promised|owe me] {r}.",
            "Can {p} [send|wire|pay|give] me {a} today?",
            "[Make|Set up|Schedule] a payment request of {a} for {p} {r}.",
            "{p} still has not [paid|repaid] me the {a}, [remind them|ask again] now.",
            "The [share|part] of {p} {r} is {a}, it goes to me.",
            "I [want|am waiting for|expect] {a} from {p}, write to them.",
            "[Bill|Charge] {p} {a} {r}.",
            "I [would like|want] to [have|receive|get] {a} from {p} by tonight.",
            "{p} is in debt to me, [tell|ask] them to [pay|send|transfer] {a} {r}.",
            "I [billed|charged] {p} {a} {r}, [collect|get|request] it.",
            "It is time that {p} [paid|repaid] me the {a} {r}.",
        ],
        "validation": [
            "I picked up the bill of {a} {r}, have {p} reimburse me.",
            "Please let {p} wire {a} into my account.",
            "{p} borrowed {a} off me and it is time for them to repay.",
            "Let {p} know they are {a} in my debt.",
            "It would be good if {p} paid me back the {a} {r}.",
            "I am expecting {a} from {p}, get in touch with them.",
            "Please invoice {p} {a} {r}.",
            "Send {p} a bill of {a} {r} so that they pay me.",
            "I am collecting {r}, get {p} to give me {a}.",
        ],
    },
    "incoming_status": {
        "train": [
            "[Did|Has] the {a} from {p} [arrive|arrived|come in]?",
            "Has {p} [paid|sent|wired|repaid] me the {a} yet?",
            "{p} says they [sent|wired|paid] me {a}, [is it here|has it come|can you see it]?",
            "I never [got|received|saw] the {a} from {p}.",
            "When will the {a} from {p} [be in|reach|show up in] my account?",
            "{p} [transferred|sent|wired] {a} to me {r} but I [cannot see it|see nothing|cannot find it].",
            "[Check|Tell me|Confirm] whether {p} [sent|paid] me the {a} {r}.",
            "Where is the {a} that {p} [paid|sent|owed|promised] me?",
            "I am [still|yet] waiting for the {a} that {p} [sent|wired|paid] on Monday.",
            "Is the [payment|transfer] of {a} from {p} in my account [now|already|yet]?",
            "{p} [promised|was going to pay] me {a} {r}, [did they pay|has it come]?",
            "Why has the [payment|transfer] of {a} from {p} not [reached me|come in|arrived here]?",
            "Have I [got|received] {a} from {p}?",
            "{p} [paid|sent|repaid] me {a} last week and nothing has [come|arrived].",
            "Show me if {p} [gave|paid|wired] me the {a} {r}.",
            "My [balance|account] does not have the {a} from {p}.",
            "Any [news|sign] of the {a} from {p} on my side?",
            "I wonder if {p} has [sent|paid] me {a} by now.",
        ],
        "validation": [
            "Any sign of the {a} that {p} was sending me?",
            "{p} claims to have reimbursed me {a} {r}, can you confirm?",
            "Has the {a} that {p} owed me landed here?",
            "I cannot find {a} coming in from {p} {r}.",
            "The {a} that {p} has put through to me {r} is missing.",
            "Let me know when the {a} of {p} gets to my account.",
            "What is holding up the {a} on its way from {p} to me?",
            "According to {p} I was repaid {a} and I see nothing.",
            "Has anything come in from {p}? It should be {a}.",
        ],
    },
    "outgoing_status": {
        "train": [
            "[Did|Has] my {a} [reach|reached|got to|come to] {p}?",
            "Has {p} [got|received|been paid] the {a} from me yet?",
            "I [sent|wired|paid] {p} {a}, [is it there|has it come|can they see it]?",
            "{p} never [got|received|saw] the {a} from me.",
            "When will my {a} [be in|reach|show up in] the account of {p}?",
            "I [transferred|sent|wired] {a} to {p} {r} but they [cannot see it|see nothing|cannot find it].",
            "[Check|Tell me|Confirm] whether the {a} I [sent|paid] {p} {r} went through.",
            "Where is the {a} that I [paid|sent|owed|promised] {p}?",
            "{p} is [still|yet] waiting for the {a} that I [sent|wired|paid] on Monday.",
            "Is my [payment|transfer] of {a} to {p} in their account [now|already|yet]?",
            "{p} was [promised|going to get] {a} from me {r}, [do they have it|has it come]?",
            "Why has my [payment|transfer] of {a} not [reached|come to|arrived at] {p}?",
            "Has the {a} been [paid out|delivered|handed] to {p}?",
            "I [paid|sent|repaid] {p} {a} last week and they say nothing has [come|arrived].",
            "Show me if {p} [was given|was paid|received] my {a} {r}.",
            "{p} says their [balance|account] does not have my {a}.",
            "Any [news|sign] of my {a} on the side of {p}?",
            "I wonder if {p} has [got|received] my {a} by now.",
        ],
        "validation": [
            "Any sign that {p} was sent my {a}?",
            "I reimbursed {p} {a} {r}, can you confirm they have it?",
            "Has the {a} that I owed {p} landed there?",
            "{p} cannot find {a} coming in from me {r}.",
            "The {a} that I have put through to {p} {r} is missing on their side.",
            "Let me know when my {a} gets to the account of {p}.",
            "What is holding up the {a} on its way from me to {p}?",
            "According to me {p} was repaid {a}, yet they see nothing.",
            "Does {p} have my {a} by now, or is it still with you?",
        ],
    },
    "cancel_payment": {
        "train": [
            "[Cancel|Stop|Call off|Halt] the {a} to {p}.",
            "[Stop|Cancel|Block] my [payment|transfer] of {a} to {p} {r}.",
            "I do not want to [pay|send|give] {p} the {a} after all.",
            "Please do not [send|pay|give] {p} the {a}.",
            "[Take|Call|Get] back the {a} I sent {p}.",
            "The transfer of {a} to {p} was [a mistake|wrong], [stop|cancel|reverse] it.",
            "Can I still [cancel|stop|call off] the {a} that goes to {p} tonight?",
            "{p} should not [get|receive|have] the {a} {r}, [hold it back|stop it].",
            "I [sent|set up] {a} to {p} by mistake, [undo|cancel|reverse] it.",
            "Do not let the {a} to {p} [go out|go through|leave].",
            "I changed my mind about [paying|sending] {p} {a}.",
            "{p} does not need my {a} any more, [drop|cancel|scrap] the transfer.",
            "[Remove|Delete|Scrap] the payment of {a} to {p} planned for Friday.",
            "The trip is off, so {p} must not [be paid|get] the {a}.",
            "Ignore my last message, {p} is not to [get|receive] {a}.",
            "Please keep my {a}, {p} [will not get it|does not get it].",
            "Somebody else has paid {p}, so [drop|stop] my {a} {r}.",
            "If it is not too late, [stop|block] the {a} to {p}.",
        ],
        "validation": [
            "Call off the {a} I set up for {p}.",
            "Halt the {a} heading to {p} {r} before it leaves.",
            "On second thoughts, {p} is not getting {a} from me.",
            "Abort the {a} transfer, {p} gave me the wrong details.",
            "Is there time to stop the {a} before {p} receives it?",
            "I would rather not go through with the {a} for {p}.",
            "Scrap the {a} for {p}, we split the bill differently.",
            "Reverse what I have just set up, {a} to {p}.",
            "There is no need to pay {p} {a} {r}, somebody else has.",
        ],
    },
    "keep_payment": {
        "train": [
            "Do not [cancel|stop|call off|halt] the {a} to {p}.",
            "Do not [stop|cancel|block] my [payment|transfer] of {a} to {p} {r}.",
            "I do want to [pay|send|give] {p} the {a} after all, [keep it|let it go].",
            "Please let the {a} to {p} [go out|go through|leave] as planned.",
            "Do not [take|call|get] back the {a} I sent {p}.",
            "The transfer of {a} to {p} was [no mistake|right], [leave|keep] it.",
            "I [said|told you to] [cancel|stop] the {a} for {p}, but please do not.",
            "{p} should still [get|receive|have] the {a} {r}, [do not hold it back|leave it].",
            "Forget that I wanted to [stop|cancel|call off] the {a} to {p}.",
            "[Undo|Reverse|Ignore] the cancellation of {a} to {p}.",
            "I changed my mind again, keep [paying|sending] {p} {a}.",
            "{p} does need my {a}, so [keep|leave] the transfer.",
            "[Leave|Keep] the payment of {a} to {p} planned for Friday as it is.",
            "The trip is on again, so {p} must [be paid|get] the {a} as planned.",
            "Ignore my last message, the {a} to {p} [stays|goes ahead].",
            "I [cancelled|stopped|called off] the {a} for {p} by mistake, [put it back|restore it].",
            "There is no need to [cancel|stop|scrap] my {a} for {p} {r}.",
            "It is [fine|all right] to pay {p} {a}, [cancel|stop|block] nothing.",
        ],
        "validation": [
            "Please never call off the {a} I set up for {p}.",
            "There is no reason to halt the {a} heading to {p} {r}.",
            "On second thoughts, leave the {a} for {p} as it was.",
            "Do not abort the {a} transfer, {p} gave me the right details.",
            "I take it all back, the {a} for {p} stays scheduled.",
            "I would rather go ahead with the {a} for {p}, as planned.",
            "Restore the {a} that I called off for {p}.",
            "There is nothing wrong with the {a} for {p}, let it carry on.",
            "It was a mistake to scrap the {a} for {p}, keep it.",
        ],
    },
    "unknown_payment": {
        "train": [
            "I never [sent|paid|gave] {a} to {p}.",
            "I do not know any {n}, why did {a} go to them?",
            "Who is {n} and why did I [pay|send] them {a}?",
            "There is a [payment|transfer] of {a} to {p} that I did not [make|order|approve].",
            "Somebody [paid|sent|wired] {p} {a} from my account.",
            "I see {a} to {p} {r}, but that was not [me|mine].",
            "Why did {p} get {a} out of my [account|balance] without asking?",
            "{p} took {a} from me and I had not [agreed|allowed it].",
            "I did not [approve|allow|order] the {a} for {p}.",
            "My statement shows {a} to {p}, I [know nothing about it|did not do that].",
            "The {a} has gone to {p} and I never [ordered|allowed] it.",
            "I have never paid anybody called {n}, so what is this {a}?",
            "Did [someone else|a stranger|a thief] send {p} {a} with my [card|phone]?",
            "The {a} to {p} was made when I was [asleep|away].",
            "I lost my [phone|card] and now {p} has {a} of mine.",
            "Nobody in my family [sent|paid] {p} the {a} {r}.",
            "I do not [recognise|remember] the {a} to {p}.",
            "I have no idea how {p} [came to get|took] {a} from my [account|balance].",
        ],
        "validation": [
            "I cannot remember any {a} going to {p}.",
            "What is this {a} to {p}? It is not mine.",
            "A stranger must have used my card to wire {p} {a}.",
            "I have no idea who {n} is, yet {a} was taken.",
            "I gave nobody permission to hand {p} {a} {r}.",
            "Fraud, {a} went to a certain {n} that I never heard of.",
            "Whoever moved {a} to {p}, it certainly was not me.",
            "I know nothing of how {p} got {a} from my balance.",
            "I was hacked and {p} received {a}.",
        ],
    },
    "duplicate_payment": {
        "train": [
            "I [paid|sent] {p} {a} [two times|twice].",
            "The {a} to {p} [went out|was sent|left] [twice|two times].",
            "Why did you [send|pay] {p} {a} again?",
            "My statement shows {a} to {p} [two times|twice|double].",
            "{p} got {a} from me [twice|two times] {r}.",
            "I [sent|paid] {p} {a} once, but there are two [payments|transfers].",
            "I only wanted to [pay|send] {p} {a} [one time|once].",
            "You took the {a} for {p} again although I had already paid.",
            "There is [a second|another|an extra] payment of {a} to {p} that should not be there.",
            "Both yesterday and today {a} went to {p} {r}.",
            "{p} says they [received|got] my {a} [twice|double].",
            "I pressed pay again by mistake and {p} has double the {a}.",
            "Did I [pay|send] {p} the {a} {r} twice?",
            "The same {a} to {p} is on my account again.",
            "The first {a} reached {p}, why is there [another|a second one]?",
            "{p} should have {a}, not two times {a}.",
            "I was [charged|debited] [twice|two times|double] for the {a} to {p}.",
            "[Two|Both] payments of {a} [reached|went to] {p}.",
        ],
        "validation": [
            "I have been debited double for the {a} that went to {p}.",
            "{p} ended up with my {a} two times over.",
            "One {a} to {p} was enough, there is an extra one.",
            "You have repeated the {a} I gave {p} {r}.",
            "I see a duplicate of the {a} for {p}.",
            "The app froze, and now two {a} transfers have left for {p}.",
            "Somehow {p} was wired {a} and then {a} once more.",
            "Was {p} reimbursed more than once? I see {a} and {a} again.",
            "Of the two payments of {a} to {p} only one is right.",
        ],
    },
}

NAMES = {
    "train": ["Anna", "Tom", "Priya", "Marek", "Lucy Chen", "Mr Novak", "Ines", "Yusuf", "Greta", "Paul"],
    "validation": ["Anna", "Tom", "Yusuf", "Jonas", "Leila", "Mrs Okafor"],
}
PEOPLE = {
    "train": ["my sister", "the landlord", "my flatmate", "the plumber", "my brother", "the club", "our teacher"],
    "validation": ["my sister", "the landlord", "my cousin", "the electrician", "our neighbour"],
}
AMOUNTS = ["20 euros", "35 pounds", "fifty dollars", "12.50", "90 euros", "8 pounds", "140 dollars", "200 euros", "sixty", "75"]
REASONS = {
    "train": ["for the tickets", "for the rent", "for dinner", "for the taxi", "for the trip", "for the present", "for June"],
    "validation": ["for the rent", "for dinner", "for the groceries", "for the hotel", "for the bike"],
}
OPENERS = ["", "", "", "", "Hi, ", "Hello, ", "Good morning, ", "One more thing: ", "Sorry to bother you, "]
CLOSERS = ["", "", "", "", " Thanks.", " Thank you!", " It is about last weekend.", " We were on holiday together."]


def choose(pattern, draw):
    """A template of a pattern: one of each [x|y]."""
    return re.sub(r"\[([^]]*)\]", lambda choice: draw.choice(choice[1].split("|")), pattern)


def sentence(template, split, draw):
    """One sentence of a template."""
    slots = {
        "p": draw.choice(NAMES[split] + PEOPLE[split]),
        "n": draw.choice(NAMES[split]),
        "a": draw.choice(AMOUNTS),
        "r": draw.choice(REASONS[split]),
    }
    opener, closer = draw.choice(OPENERS), draw.choice(CLOSERS)
    body = template.format(**slots)
    if not opener:
        body = body[0].upper() + body[1:]
    elif not template.startswith(("{", "I ")):
        body = body[0].lower() + body[1:]
    return opener + body + closer


def rows(split, draw):
    """All rows of a split in a shuffled order; no two have the same text."""
    result, seen = [], set()
    for label, patterns in PATTERNS.items():
        for pattern in patterns[split]:
            wanted = len(seen) + ROWS_PER_PATTERN[split]
            while len(seen) < wanted:
                template = choose(pattern, draw)
                text = sentence(template, split, draw)
                if text not in seen:
                    seen.add(text)
                    result.append({"text": text, "label": label, "template": template})
    draw.shuffle(result)
    return result


def main():
    """Writes both files beside this script."""
    draw = random.Random(SEED)
    for split in ("train", "validation"):
        path = pathlib.Path(__file__).with_name(f"{split}.jsonl")
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split, draw)]
        path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
