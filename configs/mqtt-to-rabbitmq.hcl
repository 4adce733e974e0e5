# Measurements from MQTT into a queue of RabbitMQ, none of them lost.
#
# The MQTT broker has to keep what it has accepted: for mosquitto that is max_queued_messages 0 and
# autosave_on_changes true.

site "archive" {
  drain = "20s"
}

listen {
  admin = "127.0.0.1:3570"
}

broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}

broker "amqp" "work" {
  url      = "amqp://127.0.0.1:5672/"
  username = env("AMQP_USER", "guest")
  password = env("AMQP_PASSWORD", "guest")
}

graph "main" {
  file = "graphs/archive.fbp"
}

participant "thermometer" {
  component = "demo/Thermometer"
  broker    = broker.mqtt.house

  outport "temperature" {
    address = "sensors/+/temperature"
    type    = "number"
    qos     = 1
  }
}

participant "archive" {
  component = "demo/Archive"
  broker    = broker.amqp.work

  inport "in" {
    address    = "archive"
    queue_type = "quorum"
  }
}

edge "thermometer.temperature" "archive.in" {
  require     = "at-least-once"
  dead_letter = "dead.archive"
  window      = 500
}
