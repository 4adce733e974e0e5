broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}
participant "syntax" {
  file = "participants/syntax.yml"
}
participant "empty" {
  file = "participants/empty.yml"
}
participant "list" {
  file = "participants/list.yml"
}
participant "wrong" {
  file = "participants/wrong.yml"
}
participant "missing" {
  file = "participants/missing.yml"
}
