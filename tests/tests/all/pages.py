"""Goes through the server's pages with a browser: pages.py URL ADMIN_TOKEN APPEND_TOKEN DIRECTORY"""

import json
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

url, admin, append, directory = sys.argv[1:]
options = webdriver.ChromeOptions()
for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,800"):
    options.add_argument(argument)
options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def text():
    return browser.find_element(By.TAG_NAME, "main").text


def press(*keys):
    browser.switch_to.active_element.send_keys(*keys)


try:
    browser.get(url + "/")
    assert browser.current_url == url + "/ui/sign-in", browser.current_url
    press("dpt_wrong", Keys.ENTER)
    assert "not good here" in text(), text()
    press(admin, Keys.ENTER)
    assert "main" in text() and "secret" in text(), text()
    browser.find_element(By.LINK_TEXT, "main").send_keys(Keys.ENTER)
    assert "nightly" in text() and "<b>host" in text(), text()
    browser.save_screenshot(directory + "/overview.png")
    browser.find_element(By.PARTIAL_LINK_TEXT, "tree").send_keys(Keys.ENTER)
    browser.find_element(By.LINK_TEXT, "odd").send_keys(Keys.ENTER)
    assert "<script>alert(1)<x>" in text(), text()
    browser.save_screenshot(directory + "/directory.png")
    browser.get(url + "/ui/secret")
    assert "encrypted" in text(), text()
    browser.find_element(By.CSS_SELECTOR, "header button").send_keys(Keys.ENTER)
    assert "Sign in" in text(), text()
    # Whoever may append sees the list, and no way into it.
    press(append, Keys.ENTER)
    assert browser.current_url == url + "/ui/main", browser.current_url
    assert not browser.find_elements(By.PARTIAL_LINK_TEXT, "tree")
    browser.get(url + "/ui/secret")
    assert "Sign in" in text(), text()
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"]
    # That a wrong token was refused is the one thing that a browser remarks upon.
    complaints = [entry for entry in complaints if "401 (Unauthorized)" not in entry["message"]]
    assert not complaints, complaints
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in sent if entry["method"] == "Network.requestWillBeSent"]
    assert asked and all(address.startswith(url + "/") for address in asked), asked
finally:
    browser.quit()
print("content")
