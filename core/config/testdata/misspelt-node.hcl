broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}

graph "main" {
  text = "scale(x) OUT -> IN lampe(x)"
}

participant "scale" {
  component = "x"
  outport "out" {
    address = "scale"
  }
}

participant "lamp" {
  component = "x"
  inport "in" {
    address = "lamp"
  }
}
