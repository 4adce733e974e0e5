# A motor control, with everything that it needs: a broker of its own and three small participants that flogate starts.
#
#     bin/flogate --config configs/demo.hcl
#     mosquitto_pub -t button/pressed -m true

site "demo" {}

listen {
  fbp   = "127.0.0.1:3569"
  admin = "127.0.0.1:3570"
}

embedded "local" {
  mqtt = "127.0.0.1:1883"
  nats = "127.0.0.1:4222"
}

broker "mqtt" "local" {
  url = "mqtt://127.0.0.1:1883"
}

graph "main" {
  file = "graphs/motorcontrol.fbp"
}

participant "button" {
  component = "demo/Button"
  label     = "Pressed by a person"
  icon      = "hand-o-down"
  broker    = broker.mqtt.local
  command   = ["flogate", "demo", "button", "--broker", "mqtt://127.0.0.1:1883"]

  outport "pressed" {
    address     = "button/pressed"
    type        = "boolean"
    description = "true while it is pressed"
  }
}

participant "motor" {
  component = "demo/Motor"
  label     = "Runs while it is told to"
  icon      = "cog"
  broker    = broker.mqtt.local
  command   = ["flogate", "demo", "motor", "--broker", "mqtt://127.0.0.1:1883"]

  inport "start" {
    address = "motor/start"
    type    = "boolean"
  }
  outport "running" {
    address = "motor/running"
    type    = "boolean"
  }
}

participant "warninglight" {
  component = "demo/WarningLight"
  label     = "Red while the motor runs"
  icon      = "lightbulb-o"
  broker    = broker.mqtt.local
  command   = ["flogate", "demo", "warninglight", "--broker", "mqtt://127.0.0.1:1883"]

  inport "red" {
    address = "warninglight/red"
    type    = "boolean"
  }
}

edge "button.pressed" "motor.start" {
  require = "at-least-once"
}
