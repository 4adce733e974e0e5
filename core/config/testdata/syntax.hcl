# Nothing but the syntax is reported, because what follows from a wrong one is guesswork.
broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883
}

graph "main" {
  file = [graphs/good.fbp
}

unknown {}
