# What the driver says is shown where it is written.
broker "mqtt" "house" {
  url = "http://127.0.0.1:1883"
  tls {
    key         = file("graphs/good.fbp")
    server_name = "bad"
  }
}
participant "button" {
  component = "demo/Button"
  outport "pressed" {
    address = "bad"
  }
  inport "reset" {
    address = "a"
    qos     = 7
  }
}
participant "siri" {
  file = "participants/options.yml"
}
