listen {
  fbp   = "127.0.0.1:3569"
  admin = ":3569"
}
embedded "local" {
  mqtt = "127.0.0.1:0"
  nats = "[::1]:4222"
}
embedded "local" {
  mqtt = "127.0.0.1:1884"
}
embedded "nothing" {}
embedded "more" {
  mqtt = "mqtt://127.0.0.1:1883"
  nats = "[::]:4222"
}
broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
graph "main" {
  file = "graphs/good.fbp"
}
graph "main" {
  file = "graphs/good.fbp"
}
participant "button" {
  component = "demo/Button"
  outport "pressed" {
    address = "button/pressed"
  }
  outport "PRESSED" {
    address = "button/pressed"
  }
}
participant "button" {
  component = "demo/Button"
}
edge "button.pressed" "motor.start" {}
edge "button.PRESSED" "motor.START" {}
