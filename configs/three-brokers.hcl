# One graph over three brokers.

site "house" {
  data_dir = "data"
}

listen {
  fbp   = "127.0.0.1:3569"
  admin = "127.0.0.1:3570"
}

plugins {
  directory = "plugins"
}

broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}

broker "nats" "bus" {
  url = "nats://127.0.0.1:4222"
}

broker "amqp" "work" {
  url     = env("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
  isolate = true # a plugin process that it shares with no other broker
}

graph "main" {
  file = "graphs/house.fbp"
}

participant "bell" {
  component = "demo/Bell"
  broker    = broker.nats.bus

  outport "rung" {
    address = "bell.rung"
  }
}

participant "siri" {
  file   = "participants/siri.yml"
  broker = broker.mqtt.house
}

participant "log" {
  component = "demo/Log"
  broker    = broker.amqp.work

  inport "in" {
    address = "log"
  }
}

edge "siri.opened" "log.in" {
  require     = "at-least-once"
  dead_letter = "dead.log"
}
