site "letters" {}

broker "mqtt" "m" {
  url = "mqtt://127.0.0.1:1883"
}

broker "amqp" "a" {
  url = "fake://127.0.0.1"
}

graph "main" {
  text = "one(x) OUT -> IN two(x)\none OUT -> IN elsewhere(x)\ntwo OUT -> IN one"
}

participant "one" {
  component = "x"
  broker    = broker.mqtt.m
  inport "in" { address = "one/in" }
  outport "out" {
    address = "one/out"
    qos     = 1
  }
}

participant "two" {
  component = "x"
  broker    = broker.mqtt.m
  inport "in" { address = "two/in" }
  outport "out" { address = "two/out" }
}

edge "one.out" "two.in" {
  dead_letter        = "letters"
  dead_letter_broker = broker.amqp.a
  dead_letter_options {
    qos  = 7

  }
}

