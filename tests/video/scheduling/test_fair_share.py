"""Whose turn it is: shares, weights, priority, age and reruns, through admission itself."""

from __future__ import annotations

from collections import Counter

import pytest
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection

from tests.factories import admitted, claimed, make_task, make_user, reload
from video.attempts import configured_keys, records
from video.credits import ledger
from video.engine import transitions
from video.infra import database
from video.models import Generation, ProviderAccount, UserShare, UserUsage, VideoTask
from video.scheduling import admission, fair_share, wait_deadline

pytestmark = pytest.mark.django_db
IMAGE = {"image_url": "https://example.com/cat.png"}  # runs on another model than a task from text


@pytest.fixture(autouse=True)
def _rows() -> None:
    configured_keys.sync()


def give_slots(number: int, model: str = "gen4.5") -> None:
    """That many slots on the only account of a model, taken ones among them."""
    ProviderAccount.objects.filter(model=model).update(slots=number)


def admit() -> list[VideoTask]:
    """Who was admitted, in order."""
    return [VideoTask.objects.get(pk=task_id) for task_id, _ in admission.admit()]


def users_of(tasks: list[VideoTask]) -> Counter[int]:
    return Counter(task.user_id for task in tasks)


def many(user: AbstractBaseUser, number: int, **more: object) -> list[VideoTask]:
    return [make_task(user, **more) for _ in range(number)]


def forget_what_was_given() -> None:
    """As if everybody had been idle for very long."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE video_userusage SET as_of = as_of - interval '400 days'")


def end_all_jobs() -> None:
    """Every job that is under way ends, and its slot is free."""
    for generation in Generation.objects.filter(state="planned"):
        records.record_rejected(generation.pk, code="generation_failed", message="It could not be made.")


def test_one_users_long_line_does_not_hold_up_the_others() -> None:
    long, others = make_user(), [make_user() for _ in range(3)]
    many(long, 10)
    late = [make_task(user) for user in others]
    give_slots(4)
    found = admit()
    assert users_of(found) == {long.pk: 1, **{user.pk: 1 for user in others}}
    assert set(late) < set(found)


def test_a_slot_that_nobody_else_wants_goes_to_the_long_line() -> None:
    long = make_user()
    many(long, 5)
    other = make_task()
    give_slots(5)
    assert users_of(admit()) == {long.pk: 4, other.user_id: 1}


def test_a_user_of_twice_the_weight_gets_twice_as_many_slots() -> None:
    light, heavy = make_user(), make_user()
    UserShare.objects.create(user=heavy, weight=2)
    many(light, 10)
    many(heavy, 10)
    give_slots(6)
    assert users_of(admit()) == {light.pk: 2, heavy.pk: 4}
    give_slots(12)
    assert users_of(admit()) == {light.pk: 2, heavy.pk: 4}


def test_jobs_that_are_under_way_count() -> None:
    busy, idle = make_user(), make_user()
    many(busy, 9)
    give_slots(3)
    admit()
    forget_what_was_given()
    many(idle, 9)
    give_slots(6)
    assert users_of(admit()) == {idle.pk: 3}
    give_slots(8)
    assert users_of(admit()) == {idle.pk: 1, busy.pk: 1}


def test_who_was_served_lately_comes_after_who_was_not() -> None:
    served, other = make_user(), make_user()
    many(served, 2)
    give_slots(2)
    admit()
    end_all_jobs()
    older = make_task(served)
    newer = make_task(other)
    give_slots(1)
    assert admit() == [newer]
    end_all_jobs()
    forget_what_was_given()
    another = make_task(other)
    assert admit() == [older]
    assert reload(another).admit_at is not None


def grant(user: AbstractBaseUser, times: int) -> None:
    database.execute(
        fair_share.COUNT_GRANTED.format(rows="(SELECT %(user)s AS user_id FROM generate_series(1, %(times)s)) given"),
        {"user": user.pk, "times": times, "resource": "slot", "half_life": fair_share.HALF_LIFE_S},
    )


def test_what_was_given_is_forgotten_by_half_in_a_half_life() -> None:
    user = make_user()
    grant(user, 8)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE video_userusage SET as_of = as_of - %s * interval '1 second'", [2 * fair_share.HALF_LIFE_S]
        )
    grant(user, 1)
    assert UserUsage.objects.get(user=user, resource="slot").amount == pytest.approx(8 / 4 + 1, abs=0.1)


def test_a_user_of_weight_1_gets_a_part_beside_one_of_weight_1000() -> None:
    light, heavy = make_user(), make_user()
    UserShare.objects.create(user=heavy, weight=1000)
    many(heavy, 12)
    many(light, 3)
    give_slots(1)

    def turns(number: int) -> Counter[int]:
        found: list[VideoTask] = []
        for _ in range(number):
            found += admit()
            end_all_jobs()
        return users_of(found)

    assert turns(5) == {heavy.pk: 4, light.pk: 1}
    forget_what_was_given()
    assert turns(5) == {heavy.pk: 4, light.pk: 1}


def test_more_users_than_slots_take_turns() -> None:
    long, others = make_user(), [make_user() for _ in range(4)]
    many(long, 6)
    for user in others:
        many(user, 2)
    give_slots(1)
    served = []
    for _ in range(10):
        served += admit()
        end_all_jobs()
    assert set(users_of(served).values()) == {2}
    assert len(users_of(served[:5])) == 5


def test_the_highest_priority_of_a_user_goes_first_and_then_the_oldest() -> None:
    user = make_user()
    low, first, second, high = many(user, 4)
    VideoTask.objects.filter(pk=high.pk).update(priority=10)
    VideoTask.objects.filter(pk=low.pk).update(priority=-10)
    give_slots(4)
    assert admit() == [high, first, second, low]


def test_priority_takes_nothing_from_other_users() -> None:
    other = make_task()
    urgent = make_task()
    VideoTask.objects.filter(pk=urgent.pk).update(priority=100)
    give_slots(1)
    assert admit() == [other]


def test_reruns_come_after_all_fresh_work() -> None:
    again, fresh = make_user(), make_user()
    rerun = make_task(again)
    VideoTask.objects.filter(pk=rerun.pk).update(rerun=True, priority=100)
    new = many(fresh, 3)
    give_slots(2)
    assert admit() == new[:2]
    give_slots(3)
    assert admit() == [new[2]]
    give_slots(4)
    assert admit() == [rerun]


def test_a_rerun_gets_a_slot_that_no_fresh_work_can_use() -> None:
    rerun = make_task(**IMAGE)
    VideoTask.objects.filter(pk=rerun.pk).update(rerun=True)
    fresh = many(make_user(), 4)
    give_slots(1)
    give_slots(1, "gen4_turbo")
    assert set(admit()) == {fresh[0], rerun}


def test_a_long_line_for_a_full_model_hides_no_short_one_of_the_same_user() -> None:
    user = make_user()
    many(user, admission.AT_ONCE + 2)
    image = make_task(user, **IMAGE)
    give_slots(0)
    give_slots(1, "gen4_turbo")
    assert admit() == [image]


def test_slots_of_several_models_are_filled_in_one_pass() -> None:
    user = make_user()
    text, image = many(user, 4), many(user, 2, **IMAGE)
    give_slots(2)
    give_slots(2, "gen4_turbo")
    assert set(admit()) == {*text[:2], *image}


def test_a_task_that_can_not_be_run_after_all_does_not_hold_up_the_next() -> None:
    broken, whole = make_task(), make_task()
    VideoTask.objects.filter(pk=broken.pk).update(eligible_models=["gen4_turbo"])  # which needs an image
    give_slots(0)
    give_slots(1, "gen4_turbo")
    image = make_task(**IMAGE)
    assert admit() == [image]
    give_slots(1)
    assert admit() == [whole]
    assert reload(broken).admit_at is not None


def test_a_task_whose_attempts_are_used_up_ends_and_the_next_gets_the_slot() -> None:
    tired = make_task()
    for _ in range(admission.MAX_ATTEMPTS):
        generation = admitted(tired)
        claim = claimed(tired)
        records.mark_sent(claim, generation)
        records.record_rejected(generation.pk, code="generation_failed", message="It could not be made.")
        transitions.wait_for_slot(claim, delay_s=0, reason="next")
    forget_what_was_given()
    following = make_task()
    give_slots(1)
    assert admit() == [following]
    assert reload(tired).status == "failed"


def test_tasks_that_were_passed_over_are_left_out_and_without_a_model_there_is_no_turn() -> None:
    first, second = make_task(), make_task()
    assert [one.task.pk for one in fair_share.waiting(["gen4.5"], 5)] == [first.pk, second.pk]
    assert [one.task.pk for one in fair_share.waiting(["gen4.5"], 5, without=[first.pk])] == [second.pk]
    assert fair_share.waiting([], 5) == []


def test_a_user_who_is_kept_out_of_a_model_waits_without_taking_a_place_in_its_line() -> None:
    hostile, other = make_user(), make_user()
    barred = [make_task(hostile) for _ in range(3)]
    wide = make_task(hostile, model_requested="", fallback=True)
    free = make_task(other)
    kept_out = [(hostile.pk, "gen4.5"), (other.pk, "kling-2.6")]
    found = fair_share.waiting(["gen4.5"], 2, kept_out=kept_out)
    assert [one.task.pk for one in found] == [free.pk]
    found = fair_share.waiting(["gen4.5", "kling-2.6"], 5, kept_out=kept_out)
    assert {one.task.pk for one in found} == {free.pk, wide.pk}
    # `wide` alone allows others, and has some.
    assert not fair_share.blocked(["gen4.5", "kling-2.6"], 5, kept_out=kept_out)
    VideoTask.objects.filter(pk=barred[0].pk).update(fallback=True)
    assert [task.pk for task in fair_share.blocked(["gen4.5", "pika-2.2"], 5, kept_out=kept_out)] == [barred[0].pk]
    assert not fair_share.blocked(["gen4.5", "pika-2.2"], 5)


# --- a task that waits for ever ------------------------------------------------------------------------------------


def test_a_task_that_waited_too_long_fails_with_its_refund() -> None:
    old, new = make_task(), make_task()
    VideoTask.objects.filter(pk=old.pk).update(admit_at="2020-01-01T00:00:00Z")
    assert wait_deadline.expire_waiting() == 1
    task = reload(old)
    assert (task.status, task.error_code) == ("failed", "no_capacity")
    assert task.error_message
    assert ledger.balance(task.user_id) == 1000
    assert reload(new).is_active
    assert wait_deadline.expire_waiting() == 0


def test_a_task_that_is_refused_again_and_again_does_not_wait_for_ever() -> None:
    task = make_task()
    generation = admitted(task)
    claim = claimed(task)
    records.record_rejected(generation.pk, code="busy", message="")
    transitions.wait_for_slot(claim, delay_s=0, reason="busy")
    assert wait_deadline.expire_waiting() == 0
    Generation.objects.filter(task=task).update(planned_at="2020-01-01T00:00:00Z")
    assert wait_deadline.expire_waiting() == 1
    assert reload(task).error_code == "no_capacity"


# --- what it costs ---------------------------------------------------------------------------------------------------


def fill(user: AbstractBaseUser, number: int, *, models: str = "gen4.5", fallback: bool = False) -> None:
    """That many waiting tasks of a user, by one statement."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(
            """
            INSERT INTO video_videotask (id, user_id, run, prompt, duration_s, aspect_ratio, image_url, policy,
                fallback, model_requested, eligible_models, negative_prompt, quality, resolution, fps, request_hash,
                status,
                stage, progress, admit_at, fence, claimed_by, park_reason, tries, deaths, error_code, error_message,
                source_key, output_key, thumbnail_key, has_work_files, created_at)
            SELECT 'task_' || %(user)s || %(models)s || n, %(user)s, 1, 'A cat', 5, '16:9', '', 'balanced',
                %(fallback)s, '', string_to_array(%(models)s, ','), '', 'medium', 'source', 30, '', 'pending',
                'generate', 0, statement_timestamp(), 0, '', '', 0, 0, '', '', '', '', '', false,
                statement_timestamp() - n * interval '1 millisecond'
            FROM generate_series(1, %(number)s) n
            """,
            {"user": user.pk, "models": models, "number": number, "fallback": fallback},
        )
        cursor.execute("RESET statement_timeout")


def plan_of(statement: str, **params: object) -> list[dict[str, object]]:
    """Every node of the plan of a statement that was really run."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", params)
        (found,) = cursor.fetchone()
    nodes, todo = [], [found[0]["Plan"]]
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo += node.get("Plans", [])
    return nodes


def rows_read(nodes: list[dict[str, object]], relation: str) -> float:
    """Rows of a table that the plan touched, those that a filter threw away among them."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]  # type: ignore[operator]
        for node in nodes
        if node.get("Relation Name") == relation
    )


def test_admission_reads_a_few_rows_by_its_index_however_long_the_lines_are() -> None:
    long, short = make_user(), make_user()
    fill(long, 50_000, models="gen4.5")
    fill(long, 50_000, models="kling-3.0,gen4.5", fallback=True)
    fill(short, 3, models="pika-2.2")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE video_videotask")
    none = {"kept_users": [], "kept_models": [], "not_its_fault": []}
    common = {**none, "without": [], "resource": "slot", "half_life": fair_share.HALF_LIFE_S, "limit": 5}
    for models, most in ((["gen4.5"], 100), (["pika-2.2"], 100), (["kling-3.0", "pika-2.2"], 100)):
        nodes = plan_of(fair_share.WAITING, models=models, **common)
        used = {node.get("Index Name") for node in nodes if node.get("Relation Name") == "video_videotask"}
        assert "task_waiting_for_slot" in used, models
        assert {node["Node Type"] for node in nodes if node.get("Relation Name") == "video_videotask"} <= {
            "Index Only Scan",
            "Index Scan",
        }
        assert rows_read(nodes, "video_videotask") < most, models
    nodes = plan_of(fair_share.BLOCKED, serving=["pika-2.2"], limit=5, without=[], **none)
    assert "task_waiting_for_slot" in {node.get("Index Name") for node in nodes}
    assert rows_read(nodes, "video_videotask") < 100
