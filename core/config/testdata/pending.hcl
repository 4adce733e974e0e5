# Warnings: there is a site all the same.
broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
graph "main" {
  file = "graphs/good.fbp"
}
participant "button" {
  component = "demo/Buton"
  outport "presed" {
    address = "button/pressed"
  }
}
participant "siri" {
  file = "participants/unknown-keys.yml"
}
