"""Prints all messages of a topic as hex: `topic.py BROKER TOPIC PARTITIONS`."""

import sys

from kafka import KafkaConsumer, TopicPartition

broker, topic, count = sys.argv[1:]
consumer = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, group_id=None)
partitions = [TopicPartition(topic, number) for number in range(int(count))]
consumer.assign(partitions)
ends = consumer.end_offsets(partitions)
consumer.seek_to_beginning(*partitions)
while any(consumer.position(partition) < ends[partition] for partition in partitions):
    for messages in consumer.poll(timeout_ms=500).values():
        for message in messages:
            print((message.key or b"").hex(), message.value.hex())
