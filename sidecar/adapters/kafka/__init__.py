"""What the Kafka queue is made of: settings, topics, the publishing and the receiving side.

Rule of this package: no call of the driver is waited for without a deadline, and a client that
failed or makes no progress is not mended but replaced.
"""
