"""Makes a topic, or prints all its messages as hex: `topic.py create|read BROKER TOPIC PARTITIONS`."""

import sys

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

what, broker, topic, count = sys.argv[1:]
if what == "create":
    try:
        admin = KafkaAdminClient(bootstrap_servers=broker)
        admin.create_topics([NewTopic(topic, num_partitions=int(count), replication_factor=1)])
    except TopicAlreadyExistsError:
        pass
else:
    consumer = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, group_id=None)
    partitions = [TopicPartition(topic, number) for number in range(int(count))]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    consumer.seek_to_beginning(*partitions)
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for messages in consumer.poll(timeout_ms=500).values():
            for message in messages:
                print((message.key or b"").hex(), message.value.hex())
