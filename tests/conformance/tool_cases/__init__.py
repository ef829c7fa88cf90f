"""What each of Kafka's tools is asked to do, and what it must print."""
