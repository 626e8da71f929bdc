"""The README's ClickHouse chain over what a real splitd delivered.

    clickhouse.py README PROTO MESSAGE DIRECTORY BLOCKS ANSWERS

DIRECTORY has *.pb files of length-delimited MESSAGEs (Exposure, or
ExperimentParticipation), and one of them again as `doubled`.

Runs the statements of the README's section as they stand there (only file names,
and the engine of the queue where the README says so), then holds every row
against the answers that clients got: {"user": …, "assignments": {…}} a line.
"""
import json
import re
import sys

from chdb import session

readme, proto, message, directory, blocks, answers = sys.argv[1:]
section = open(readme).read().split("### ClickHouse\n")[1].split("\n## ")[0]
statements = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", section, re.S)
    for statement in re.split(r";\s*(?:\n|$)", block)
    if statement.strip()
]


def replaced(text, before, after):
    assert before in text, f"the README no longer says {before}: {text}"
    return text.replace(before, after)


clickhouse = session.Session()
clickhouse.query("CREATE DATABASE splitd")
clickhouse.query("USE splitd")


def rows(query):
    return [json.loads(line) for line in str(clickhouse.query(query, "JSONEachRow")).splitlines()]


found = {}
for statement in statements:
    name = " ".join(statement.split()[:4])
    if name.startswith("CREATE TABLE") and "ENGINE = Kafka" in statement:
        # No broker here: as for whoever has no Kafka.
        statement = re.sub(r"ENGINE = Kafka.*", "ENGINE = Null", statement, flags=re.S)
    elif name.startswith("INSERT INTO exposures_queue"):
        if message == "ExperimentParticipation":
            statement = replaced(statement, "exposures_queue", "participations_queue")
        statement = replaced(statement, "exposure.proto:Exposure", f"{proto}:{message}")
        # By itself what came twice; in one go doubles would not even be stored.
        clickhouse.query(replaced(statement, "exposures/*.pb", f"{directory}/*.pb"))
        statement = replaced(statement, "exposures/*.pb", f"{directory}/doubled")
    elif name.startswith("INSERT INTO blocks"):
        statement = replaced(statement, "blocks.ndjson", blocks)
    if statement.startswith("SELECT"):
        found[name] = rows(statement)
    else:
        clickhouse.query(statement)
    print("ran:", name)

(proof,) = found.values()
(proof,) = proof
assert int(proof["wrong"]) == 0, proof
assert int(proof["assignments"]) > 1000, proof

# Doubles were read, and are gone at read: as many rows as an answer has assignments.
(total,) = rows("SELECT count() AS rows, uniqExact(id, experiment) AS different FROM exposures")
assert int(total["rows"]) > int(total["different"]), total
assert int(proof["assignments"]) == int(total["different"]), (proof, total)
clickhouse.query("OPTIMIZE TABLE exposures FINAL")
(merged,) = rows("SELECT count() AS rows FROM exposures")
assert int(merged["rows"]) == int(total["different"]), merged

# Every answer that a client got, assignment for assignment, and nothing else.
recorded = {}
for row in rows(
    "SELECT hex(id) AS exposure, groupArray((experiment, `group`)) AS assigned, anyIf(unit_value, unit = 'user_id') AS user"
    " FROM exposures FINAL GROUP BY exposure"
):
    assert row["user"] not in recorded, f"{row['user']} has two exposures"
    recorded[row["user"]] = dict(row["assigned"])
answered = {}
for line in open(answers):
    answer = json.loads(line)
    if answer["assignments"]:
        answered[answer["user"]] = answer["assignments"]
assert recorded == answered, {
    user: (recorded.get(user), answered.get(user))
    for user in recorded.keys() | answered.keys()
    if recorded.get(user) != answered.get(user)
}

# A wrong group is found: one row is recorded with another group of its experiment.
one = rows("SELECT hex(id) AS id, experiment, `group` FROM proof WHERE NOT forced AND owner != '' LIMIT 1")[0]
clickhouse.query(
    "INSERT INTO exposures SELECT reverse(id), time, version, experiment_id, run_id, experiment,"
    " 'another group', forced, unit, unit_value, context FROM exposures"
    f" WHERE id = unhex('{one['id']}') AND experiment = '{one['experiment']}'"
)
(broken,) = rows(statements[-1])
assert int(broken["wrong"]) == 1, broken

print(f"ok: {proof['assignments']} assignments of {len(answered)} answers, {proof['forced']} of them forced")
