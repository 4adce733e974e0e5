broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
graph "main" {
  file = "graphs/good.fbp"
}
participant "button" {
  component = "demo/Button"
  outport "pressed" {
    address = "button/pressed"
    qos     = 1
  }
}
participant "motor" {
  component = "demo/Motor"
  inport "start" {
    address = "motor/start"
  }
  outport "running" {
    address = "motor/running"
    qos     = 1
  }
}
participant "warninglight" {
  component = "demo/WarningLight"
  inport "red" {
    address = "warninglight/+"
    qos     = 1
  }
}
edge "button.pressed" "motor.start" {
  require            = "at-least-once"
  dead_letter        = "dead/#"
  dead_letter_broker = broker.mqtt.house
}
edge "motor.running" "warninglight.red" {
  require            = "effect-once"
  dead_letter_broker = broker.mqtt.house
}
edge "motor.start" "button.pressed" {}
edge "buton.pressed" "motor.strat" {}
edge "motor.stopped" "warninglight.green" {}
edge "motor" "warninglight." {
  require = "at-last-once"
}
