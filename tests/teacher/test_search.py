"""The teacher: the graph with real pixels, and roles played by rules and by scripted policies."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent import protocol, scoring
from cof_agent.environment import ZoomEnvironment, settings_of
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.policy import Completion, PolicyError, Sampling, ScriptedPolicy
from cof_agent.protocol import Message
from cof_agent.teacher import graph as teacher
from cof_agent.teacher import roles
from cof_agent.teacher.accept import Refusal, refusal, reveals
from cof_agent.teacher.graph import Search
from cof_agent.teacher.prompted import AskedLocator, AskedPlanner, AskedSummariser, AskedVerifier
from cof_agent.teacher.roles import Advice, Cast
from cof_agent.teacher.rules import adjusted
from cof_agent.trajectory import Answer, Sample, StopReason, Trajectory, Turn
from tests.teacher.players import LIMITS, SETTINGS, Reader, cast

SIZE = (1792, 1008)
RED = Box(1200, 600, 1240, 640)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    image = Image.new("RGB", SIZE, (40, 90, 60))
    image.paste((220, 30, 30), (int(RED.x0), int(RED.y0), int(RED.x1), int(RED.y1)))
    image.save(tmp_path / "picture.png")
    return Sample("a", str(tmp_path / "picture.png"), "What colour is the patch?", ("red",), boxes=(RED,))


def run(sample: Sample, who: Cast, *, long_side: int = 448, **given: Any) -> Trajectory:
    search = Search(who, SETTINGS, **given)
    return asyncio.run(teacher.run(Episode(sample, long_side), search, ZoomEnvironment(SETTINGS)))


def student(trajectory: Trajectory) -> ZoomEnvironment:
    return ZoomEnvironment(settings_of(trajectory))


def call(name: str, **arguments: Any) -> str:
    return f"<think>Let me see.</think><tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


class TestAdapt:
    def test_no_zoom_where_the_overview_suffices(self, sample: Sample) -> None:
        found = run(sample, cast(Reader(least=1)))
        assert (found.error, found.zooms, found.answer) == (None, 0, "red")

    def test_one_zoom_where_it_does_not(self, sample: Sample) -> None:
        found = run(sample, cast())
        assert (found.error, found.zooms, found.stop) == (None, 1, StopReason.ANSWERED)
        assert found.views[1].region.coverage(RED) == 1
        assert refusal(found, student(found)) is None

    def test_several_where_the_thing_is_nested(self, sample: Sample) -> None:
        outer = [1000.0, 400.0, 1500.0, 900.0]
        looks = [{"name": "the patch on the board", "boxes": [outer, list(RED)], "detail": 10.0}]
        nested = replace(sample, metadata={"looks": looks})
        found = run(nested, cast(), long_side=224)  # the patch is 5 pixels wide there
        assert (found.error, found.zooms) == (None, 2)
        assert found.turns[1].actions[0].image == 1  # type: ignore[union-attr]
        assert "the patch on the board" in protocol.thought(found.turns[0].text).lower()

    def test_fewer_zooms_at_a_higher_resolution(self, sample: Sample) -> None:
        zooms = [run(sample, cast(), long_side=side).zooms for side in (224, 1792)]
        assert zooms == [1, 0]

    def test_the_overview_has_the_resolution_asked_for(self, sample: Sample) -> None:
        for side in (224, 448, 1792, 5000):
            found = run(sample, cast(), long_side=side)
            assert found.overview is not None
            assert found.overview.shown_size.long_side == pytest.approx(min(side, SIZE[0]), abs=28)

    def test_a_lucky_glance_is_not_enough(self, sample: Sample) -> None:
        """Greedily right, wrong when drawn: not reliable."""

        class Lucky(Reader):
            async def generate(self, messages: Any, images: Any, sampling: Sampling) -> Completion:
                seen = await super().generate(messages, images, sampling)
                lucky = sampling.temperature == 0 and images[-1].width > 250
                return Completion(protocol.write_answer("", "red")) if lucky else seen

        assert run(sample, cast(Lucky())).zooms == 1
        assert run(sample, cast(Lucky()), glances=1).zooms == 0


class TestGuesses:
    """Who answers without looking is right now and then; what is kept of that would teach to guess."""

    def guesser(self) -> Any:
        class Guesser(Reader):
            async def generate(self, messages: Any, images: Any, sampling: Sampling) -> Completion:
                self.calls += 1
                text = "".join(part.get("text", "") for part in messages[-1]["content"])
                letters = re.findall(r"^([A-D])\. ", text, re.MULTILINE)
                said = random.Random(f"{self.calls}").choice(letters or ["yes", "no"])
                return Completion(protocol.write_answer("I guess.", said))

        return Guesser()

    def test_few_guesses_are_kept(self, sample: Sample) -> None:
        four = replace(sample, choices=("red", "blue", "green", "grey"))
        assert sum(run(replace(four, id=str(n)), cast(self.guesser())).error is None for n in range(12)) <= 3

    def test_yes_and_no_are_proposed_once(self, sample: Sample) -> None:
        asked = replace(sample, question="Is it red?", answers=("yes",))
        planner = AskedPlanner(ScriptedPolicy(lambda _: "<answer>no</answer>", limits=LIMITS))
        found = run(asked, cast(self.guesser(), planner=planner))
        assert "wrong_answer: 1 answers" in (found.error or "") or not found.turns[:-1]


def test_the_answer_of_most_people_is_taught(sample: Sample) -> None:
    people = ("green", *("red",) * 8, "blue")
    asked = replace(sample, answers=people, metadata={"scoring": "vqa"})
    found = run(asked, cast())
    assert (found.error, found.answer) == (None, "red")
    assert not scoring.is_right("green", asked) and scoring.is_right("Red.", asked)


class TestSearch:
    def plan(self, *lines: str) -> tuple[AskedPlanner, list[Sequence[Message]]]:
        heard: list[Sequence[Message]] = []

        def script(messages: Sequence[Message]) -> str:
            heard.append(messages)
            return lines[[message["role"] for message in messages].count("assistant")]

        return AskedPlanner(ScriptedPolicy(script, limits=LIMITS)), heard

    def test_dead_ends_are_pruned(self, sample: Sample) -> None:
        planner, heard = self.plan(
            call("describe", bbox_2d=[10, 10, 60, 60]),
            call("describe", bbox_2d=[0, 0, 200, 200], image=7),
            "I am not sure.",
            call("locate", object="the patch"),
            call("adjust", bbox_2d=[300, 150, 310, 160], instruction="wider, please"),
            call("adjust", bbox_2d=[300, 150, 310, 160], instruction="nicer"),
            call("describe", bbox_2d=[298, 148, 312, 162], question="which colour is it?"),
            "<think>Red.</think><answer>red</answer>",
        )
        found = run(sample, cast(planner=planner))
        assert (found.error, found.zooms) == (None, 1)
        assert found.turns[0].actions[0].image == 0  # type: ignore[union-attr]
        told = [message["content"][-1]["text"] for message in heard[-1] if message["role"] == "user"]
        assert "unclear" in told[1] and "must be the number" in told[2] and "neither" in told[3]
        assert told[4].startswith("[300, 150, 310, 160] in image 0") and "Say wider" in told[6]
        assert "Image 2. Seen there: red" in told[7]

    def test_wrong_answers_bring_advice_that_does_not_tell(self, sample: Sample) -> None:
        planner, heard = self.plan(
            "<answer>crimson</answer>",
            "<answer>blue</answer>",
            call("describe", bbox_2d=[295, 145, 315, 165]),
            "<answer>red</answer>",
        )
        found = run(sample, cast(planner=planner))
        assert found.error is None and found.settings["teacher"]["wrong_answers"] == 2
        replies = [m["content"][-1]["text"] for m in heard[2] if m["role"] == "user"][1:]
        assert all("not the answer" in reply and "red" not in reply for reply in replies)
        assert replies[0] != replies[1]

    def test_attempts_run_out(self, sample: Sample) -> None:
        planner, _ = self.plan(*["<answer>blue</answer>"] * 9)
        found = run(sample, cast(planner=planner), attempts=3)
        assert found.error is not None and found.error.startswith("wrong_answer: 3 answers were wrong")
        assert found.answer == "blue"

    def test_moves_run_out(self, sample: Sample) -> None:
        planner, _ = self.plan(*["Hm."] * 99)
        assert (run(sample, cast(planner=planner), attempts=2).error or "").startswith("no_answer: no answer within 16")

    def test_an_answer_that_the_crops_do_not_support(self, sample: Sample) -> None:
        planner, _ = self.plan(call("describe", bbox_2d=[0, 0, 50, 50]), "<answer>red</answer>")
        assert (run(sample, cast(planner=planner)).error or "").startswith("unsupported")

    def test_the_rule_planner_goes_on_after_a_wrong_answer(self, sample: Sample) -> None:
        """The box is a little beside the patch: only a shifted or wider one shows it."""
        beside = Box(RED.x0 - 70, RED.y0, RED.x1 - 70, RED.y1)
        found = run(replace(sample, boxes=(beside,)), cast())
        assert found.error is None and found.views[1].region.coverage(RED) > 0.2

    def test_nothing_is_found(self, sample: Sample) -> None:
        assert (run(replace(sample, boxes=()), cast()).error or "") == "no_answer: nothing was found"

    def test_a_missing_image(self, sample: Sample) -> None:
        found = run(replace(sample, image="nowhere.png"), cast())
        assert (found.error or "").startswith("image: cannot open") and found.stop is StopReason.ERROR


class TestRoles:
    def test_a_locator_that_is_asked(self, sample: Sample) -> None:
        # 448 of 1792 pixels: a quarter
        for text in ('{"bbox_2d": [300, 150, 310, 160]}', 'Sure: [{"bbox_2d": [300, 150, 310, 160], "label": "it"}]'):
            found = run(sample, cast(locator=AskedLocator(ScriptedPolicy([text], limits=LIMITS))))
            assert found.error is None and found.views[1].region.coverage(RED) == 1
        for text in ('{"bbox_2d": null}', "It is at the right.", '{"bbox_2d": [900, 900, 950, 950]}'):
            found = run(sample, cast(locator=AskedLocator(ScriptedPolicy([text], limits=LIMITS))))
            assert (found.error or "").startswith("no_answer")

    @pytest.mark.parametrize(
        ("reply", "advice"),
        [("right", None), ("move", Advice.MOVE), ("Elsewhere.", Advice.ELSEWHERE), ("it is red!", Advice.ENLARGE)],
    )
    def test_a_verifier_that_is_asked(self, sample: Sample, reply: str, advice: Advice | None) -> None:
        verifier = AskedVerifier(ScriptedPolicy([f"<answer>{reply}</answer>"]))
        errand = roles.Errand(sample, ZoomEnvironment(SETTINGS))
        assert asyncio.run(verifier.judge(errand, "a reddish one", 0)) == advice
        assert asyncio.run(verifier.judge(errand, "Red", 0)) is None

    @pytest.mark.parametrize(
        ("thoughts", "error"),
        [
            (["It is tiny.", "Now I see it is red."], None),
            (["It may be red.", "It is."], "reveals_answer: the thought of turn 1"),
            (["It is tiny.", "The verifier agrees."], "speaks_of_search: the thought of turn 2"),
            (["Only one."], "no_words"),
            (["It is <answer>tiny</answer>.", "Good."], None),
        ],
    )
    def test_a_summariser_that_is_asked(self, sample: Sample, thoughts: list[str], error: str | None) -> None:
        policy = ScriptedPolicy(lambda _: "Here:\n" + json.dumps({"thoughts": thoughts}))
        found = run(sample, cast(summariser=AskedSummariser(policy)))
        assert found.error == error if error is None else (found.error or "").startswith(error)

    def test_what_was_asked_is_counted(self, sample: Sample) -> None:
        reader = Reader()
        found = run(sample, cast(reader))
        spent = found.settings["teacher"]
        assert (spent["calls"], spent["prompt_tokens"]) == (reader.calls, 100 * reader.calls)

    @pytest.mark.slow
    def test_a_passing_fault_is_retried(self, sample: Sample) -> None:
        class Shaky(Reader):
            async def generate(self, messages: Any, images: Any, sampling: Sampling) -> Completion:
                self.calls += 1
                if self.calls % 3:
                    raise PolicyError("overloaded")
                return await Reader.generate(self, messages, images, sampling)

        shaky = Shaky()
        shaky.calls = 0
        assert run(sample, cast(shaky)).error is None

    @pytest.mark.slow
    def test_a_lasting_fault_is_recorded(self, sample: Sample) -> None:
        dead = ScriptedPolicy(lambda _: PolicyError("the server is gone"), limits=LIMITS)
        found = run(sample, cast(dead))
        assert (found.error, found.stop) == ("policy: the server is gone", StopReason.ERROR)

    def test_adjusted(self) -> None:
        from cof_agent.geometry import Size

        box, size = Box(100, 100, 200, 200), Size(1000, 800)
        wider, left = adjusted(box, "make it WIDER", size), adjusted(box, "left", size)
        assert wider is not None and wider.width == pytest.approx(160) and wider.center == box.center
        assert left is not None and left.x0 == pytest.approx(65) and left.y0 == 100
        assert adjusted(box, "nicer", size) is None
        assert adjusted(Box(0, 0, 10, 10), "left, left, left, left", size) is None


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random OWL-ViT."""
    import torch
    from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessorPil

    folder = str(tmp_path_factory.mktemp("detector"))
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": 0}
    text = {**small, **ends, "vocab_size": len(words), "max_position_embeddings": 16}
    vision = {**small, "image_size": 64, "patch_size": 16}
    config = OwlViTConfig(text_config=text, vision_config=vision, projection_dim=32)
    OwlViTForObjectDetection(config).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16).save_pretrained(folder)
    side = {"height": 64, "width": 64}
    OwlViTImageProcessorPil(size=side, crop_size=side).save_pretrained(folder)
    return folder


def test_an_open_detector(sample: Sample, detector: str) -> None:
    from cof_agent.teacher.detector import DetectorLocator

    environment = ZoomEnvironment(SETTINGS)
    view, errand = environment.reset(sample), roles.Errand(sample, environment)
    box = asyncio.run(DetectorLocator(detector).locate(errand, view, "a patch"))
    assert box is not None and view.region.coverage(box) == pytest.approx(1)
    with pytest.raises(InputError, match="there is no model directory"):
        DetectorLocator(str(Path(detector) / "missing"))


class TestAccept:
    @pytest.fixture
    def good(self, sample: Sample) -> Trajectory:
        return run(sample, cast())

    def reason(self, trajectory: Trajectory) -> Refusal | None:
        found = refusal(trajectory, student(trajectory))
        return found[0] if found else None

    def altered(self, good: Trajectory, number: int, text: str) -> Trajectory:
        turns = list(good.turns)
        turns[number] = Turn(text, protocol.parse(text), turns[number].observations)
        return replace(good, turns=tuple(turns))

    def test_a_good_one(self, good: Trajectory) -> None:
        assert self.reason(good) is None

    def test_not_the_format(self, good: Trajectory) -> None:
        assert self.reason(self.altered(good, 1, "The answer: <answer>red</answer>")) is Refusal.FORMAT
        assert self.reason(replace(good, turns=(replace(good.turns[0], actions=(Answer("red"),)),))) is Refusal.FORMAT

    def test_a_box_outside(self, good: Trajectory) -> None:
        text = protocol.write_zoom("Too small.", Box(290, 140, 460, 170))
        assert self.reason(self.altered(good, 0, text)) is Refusal.OUTSIDE
        text = protocol.write_zoom("Too small.", Box(290, 140, 320, 170), 3)
        assert self.reason(self.altered(good, 0, text)) is Refusal.OUTSIDE

    def test_another_observation(self, good: Trajectory) -> None:
        text = protocol.write_zoom("Too small.", Box(200, 140, 320, 170))
        assert self.reason(self.altered(good, 0, text)) is Refusal.REPLAY

    def test_a_wrong_answer(self, good: Trajectory) -> None:
        assert self.reason(replace(good, answer="blue")) is Refusal.SCORE

    def test_a_truth_in_the_question_is_no_secret(self, good: Trajectory) -> None:
        text = good.turns[0].text.replace("too small", "red or not, too small")
        told = self.altered(good, 0, text)
        assert self.reason(told) is Refusal.REVEALS
        asked = replace(told.sample, question="Is the patch red?")
        assert self.reason(replace(told, sample=asked)) is None

    @pytest.mark.parametrize(
        ("thought", "question", "answer", "choices", "told"),
        [
            ("Three boats lie there.", "How many boats?", "3", (), True),
            ("One boat after the other.", "How many boats?", "1", (), False),
            ("The cats lie there.", "Which animal?", "cat", (), True),
            ("Yes, it is open.", "Is the shop open?", "yes", (), True),
            ("I can say yes or no soon.", "Is the shop open?", "yes", (), False),
            ("Option B fits.", "Which colour?", "red", ("blue", "red"), True),
            ("Option A fits.", "Which colour?", "red", ("blue", "red"), False),
            ("The sign is red.", "Is the sign red or blue?", "red", (), True),
            ("Red or blue is hard to say.", "Is the sign red or blue?", "red", (), False),
            ("The red sign is small.", "What does the red sign say?", "red", (), False),
        ],
    )
    def test_a_thought_that_tells(
        self, thought: str, question: str, answer: str, choices: tuple[str, ...], told: bool
    ) -> None:
        assert reveals(thought, Sample("a", "a.png", question, (answer,), choices)) is told

    def test_a_last_thought_that_names_another_choice(self, good: Trajectory) -> None:
        sample = replace(good.sample, choices=("red", "blue"))
        turn = good.turns[1]
        text = protocol.write_answer("It is blue.", "red")
        turns = (good.turns[0], replace(turn, text=text, actions=protocol.parse(text)))
        assert self.reason(replace(good, sample=sample, turns=turns)) is Refusal.CONTRADICTS
        assert self.reason(replace(good, sample=sample)) is None

    def test_words_of_the_question_are_no_words_of_the_search(self, good: Trajectory) -> None:
        told = self.altered(good, 0, good.turns[0].text.replace("too small", "a tool too small"))
        assert self.reason(told) is Refusal.SPEAKS
        asked = replace(told.sample, question="Which tool is there, the hammer?")
        assert self.reason(replace(told, sample=asked)) is None
